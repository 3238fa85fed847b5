package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Secrets of MQTT users.
const (
	bridgeMQTT    = "mqtt_password"
	operatorMQTT  = "mqtt_operator_password"
	registrarMQTT = "mqtt_registrar_password"
)

// mqttTimeout bounds one step with the broker.
const mqttTimeout = 10 * time.Second

var errTimeout = errors.New("the broker did not reply in time")

// mqttLogin is one way to connect to the broker.
type mqttLogin struct {
	listener, url string
	login
	tls    *tls.Config
	id     string // client id; default: a random one
	origin string // the web page that connects; default: none, a program does
}

// client is one connection to the broker. It queues the messages that it receives, and closes
// lost when the connection ends.
type client struct {
	mqtt.Client
	messages chan mqtt.Message
	lost     chan struct{}
}

// connect connects. An error is a refusal, or says that no broker is there.
func (l mqttLogin) connect() (*client, error) {
	if l.id == "" {
		l.id = marker()
	}
	headers := http.Header{}
	if l.origin != "" {
		headers.Set("Origin", l.origin)
	}
	c := &client{messages: make(chan mqtt.Message, 1000), lost: make(chan struct{})}
	c.Client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(l.url).SetClientID(l.id).SetHTTPHeaders(headers).
		SetUsername(l.user).SetPassword(l.password).SetTLSConfig(l.tls).SetConnectTimeout(mqttTimeout).SetAutoReconnect(false).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(c.lost) }).
		SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) {
			select {
			case c.messages <- message:
			default: // far more than any check reads
			}
		}))
	if err := done(c.Connect()); err != nil {
		c.Disconnect(0)
		return nil, err
	}
	return c, nil
}

func (l mqttLogin) try() error {
	c, err := l.connect()
	if err == nil {
		c.Disconnect(100)
	}
	return err
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(mqttTimeout) {
		return errTimeout
	}
	return token.Error()
}

func (c *client) subscribe(filters ...string) {
	for _, filter := range filters {
		ensure(done(c.Subscribe(filter, 1, nil)))
	}
}

func (c *client) publish(topics ...string) {
	for _, topic := range topics {
		ensure(done(c.Publish(topic, 1, false, "doctor")))
	}
}

// await waits for a message, and returns the topics of those before it.
func (c *client) await(wanted func(mqtt.Message) bool) (before []string, found bool) {
	deadline := time.After(mqttTimeout)
	for {
		select {
		case m := <-c.messages:
			if wanted(m) {
				return before, true
			}
			before = append(before, m.Topic())
		case <-deadline:
			return before, false
		}
	}
}

// until waits for a message on a topic, which must arrive, and returns the topics before it.
func (c *client) until(topic string) []string {
	before, found := c.await(func(m mqtt.Message) bool { return m.Topic() == topic })
	if !found {
		ensure(errTimeout)
	}
	return before
}

// with is an attempt with another login.
func (l mqttLogin) with(other login) attempt {
	bad := l
	bad.login = other
	return attempt{l.listener, l.try, bad.try}
}

// services is a valid login at 1883.
func (t *Target) services(ctx context.Context) mqttLogin {
	return mqttLogin{listener: "services", url: "tcp://" + t.address(t.Ports.MQTT), login: t.login(ctx, registrarMQTT)}
}

// people is a valid login at 1884.
func (t *Target) people(ctx context.Context) mqttLogin {
	return mqttLogin{listener: "people", url: "tcp://" + t.address(t.Ports.People), login: t.login(ctx, operatorMQTT)}
}

// webSocket is a valid login at 9001.
func (t *Target) webSocket(ctx context.Context) mqttLogin {
	return mqttLogin{listener: "WebSocket", url: "wss://" + t.address(t.Ports.WebSocket), login: t.login(ctx, operatorMQTT), tls: t.tls()}
}

// controller is a login at 8883, as a controller with certificates.
func (t *Target) controller(certificates ...tls.Certificate) mqttLogin {
	return mqttLogin{url: "ssl://" + t.address(t.Ports.MQTTTLS), tls: t.tls(certificates...)}
}

// session is the session of a device.
func (t *Target) session(d device) mqttLogin {
	l := t.controller(d.certificate)
	l.id = d.mac
	return l
}

// people are two controllers, and an operator who subscribes to what they publish.
type people struct {
	operator, one, two *client
	oneName, twoName   string
}

// withPeople runs a check with two controllers and an operator, which returns the topics that
// arrived and should not.
func (t *Target) withPeople(ctx context.Context, check func(*people) []string) Finding {
	devices := t.needDevices(2)
	operator := t.people(ctx)
	return repeat(ctx, func() Finding {
		var c [3]*client
		for i, l := range []mqttLogin{operator, t.session(devices[0]), t.session(devices[1])} {
			c[i] = must(l.connect())
			defer c[i].Disconnect(100)
		}
		arrived := check(&people{c[0], c[1], c[2], devices[0].mac, devices[1].mac})
		slices.Sort(arrived)
		if len(arrived) > 0 {
			return failed("arrived: %s", strings.Join(slices.Compact(arrived), ", "))
		}
		return ok("nothing arrived but what is allowed")
	})
}

// repeat runs steps with the session of a controller, again when one fails: the real
// controller takes its session back.
func repeat(ctx context.Context, steps func() Finding) (f Finding) {
	err := errTimeout
	for n := 0; n < 5 && err != nil && ctx.Err() == nil; n++ {
		f, err = catch(steps)
	}
	ensure(err)
	return f
}
