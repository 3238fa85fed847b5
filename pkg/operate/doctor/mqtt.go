package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
)

// Secrets of the users that look on, and of the bridge.
const (
	bridgeMQTT    = "mqtt_password"
	operatorMQTT  = "mqtt_operator_password"
	registrarMQTT = "mqtt_registrar_password"
)

// mqttTimeout bounds one step with the broker.
const mqttTimeout = 10 * time.Second

var errTimeout = errors.New("no answer in time")

func mqttChecks() []Check {
	return []Check{
		{
			"mqtt-anonymous", "MQTT Authentication: Testing", "connections without user and password on 1883, 1884 and 9001, and without a certificate on 8883",
			"allow_anonymous false in mosquitto.conf, and restart the broker", mqttAnonymous,
		},
		{
			"mqtt-password", "MQTT Authentication: Testing", "connections with a wrong password on 1883, 1884 and 9001",
			"password_file in mosquitto.conf, and restart the broker", mqttPassword,
		},
		{
			"mqtt-listeners", "MQTT Authentication: Security Architecture", "people with their passwords on the services' listener 1883, services with theirs on the people's, 1884 and 9001",
			"run the broker by `f2mesh up` or `f2mesh broker`, with mosquitto.conf as shipped; `f2mesh secret rotate mqtt_operator_password`", mqttListeners,
		},
		{
			"mqtt-client-id", "MQTT Authentication: Security Architecture", "a person's connections under two client ids on 1884 and 9001: both have to be the user's name, so that the second ends the first",
			"use_username_as_clientid true on the socket's listener in mosquitto.conf, and restart the broker", mqttClientID,
		},
		{
			"mqtt-origin", "MQTT Authentication: Security Architecture", "a connection to 9001 from a web page of another host",
			"take what is not yours out of F2MESH_MQTT_ORIGINS, and restart the mesh", mqttOrigin,
		},
		{
			"mqtt-connections", "Resource limits", "9001 with many connections of one address that say nothing, and how many files Mosquitto may have open, connections among them",
			"restart the mesh; only f2mesh may listen on 9001, and Mosquitto may open as many files as it takes connections", mqttConnections,
		},
		{
			"mqtt-no-certificate", "mTLS Device Authentication", "a connection without a certificate on 8883, with a good password too",
			"require_certificate true on listener 8883", mqttNoCertificate,
		},
		{
			"mqtt-wrong-certificate", "mTLS Device Authentication", "a connection with a self-signed certificate of a controller's name on 8883",
			"cafile of listener 8883 must hold our CAs alone", mqttWrongCertificate,
		},
		{
			"mqtt-topic-publish", "MQTT Authentication: Security Architecture", "a controller's publish on another's topics and on none of its own",
			"restart the mesh, which writes the broker's ACL anew from the registry", mqttPublish,
		},
		{
			"mqtt-topic-subscribe", "MQTT Authentication: Security Architecture", "a controller's subscription to another's topics",
			"restart the mesh, which writes the broker's ACL anew from the registry", mqttSubscribe,
		},
		{
			"mqtt-failed-logins", "Monitoring: failed authentication attempts logged", "a wrong password, and its line in the broker's log",
			"log_type notice in mosquitto.conf", mqttFailedLogins,
		},
	}
}

// client is one connection to the broker. Messages has what came, by topic.
type client struct {
	mqtt.Client
	messages chan string
	lost     chan struct{}
}

// dial connects; an error is a refusal, or says that nobody is there.
func (m *Mesh) dial(url, user, password, id string, config *tls.Config) (*client, error) {
	return m.dialFrom("", url, user, password, id, config)
}

// dialFrom connects as the scripts of a web page do; "": as a program.
func (m *Mesh) dialFrom(origin, url, user, password, id string, config *tls.Config) (*client, error) {
	c := &client{messages: make(chan string, 1000), lost: make(chan struct{})}
	headers := http.Header{}
	if origin != "" {
		headers.Set("Origin", origin)
	}
	c.Client = mqtt.NewClient(mqtt.NewClientOptions().AddBroker(url).SetClientID(id).SetHTTPHeaders(headers).
		SetUsername(user).SetPassword(password).SetTLSConfig(config).SetConnectTimeout(mqttTimeout).
		SetConnectionLostHandler(func(mqtt.Client, error) { close(c.lost) }).
		SetAutoReconnect(false).SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) {
		select {
		case c.messages <- message.Topic():
		default: // far more than any check asks for
		}
	}))
	if err := done(c.Connect()); err != nil {
		c.Disconnect(0)
		return nil, err
	}
	return c, nil
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(mqttTimeout) {
		return errTimeout
	}
	return token.Error()
}

// subscribe is an error also where the broker refuses the filter.
func (c *client) subscribe(filters ...string) error {
	for _, filter := range filters {
		if err := done(c.Subscribe(filter, 1, nil)); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) publish(topics ...string) error {
	for _, topic := range topics {
		if err := done(c.Publish(topic, 1, false, "doctor")); err != nil {
			return err
		}
	}
	return nil
}

// until collects topics until the given one is there.
func (c *client) until(topic string) ([]string, error) {
	var seen []string
	deadline := time.After(mqttTimeout)
	for {
		select {
		case t := <-c.messages:
			if seen = append(seen, t); t == topic {
				return seen, nil
			}
		case <-deadline:
			return seen, errTimeout
		}
	}
}

// login tries one connection, and ends it.
func (m *Mesh) login(url, user, password string, config *tls.Config) error {
	c, err := m.dial(url, user, password, marker(), config)
	if err == nil {
		c.Disconnect(100)
	}
	return err
}

// listener is one that takes passwords. The secret is that of somebody whom it is for.
type listener struct {
	name, url string
	config    *tls.Config
	secret    string
}

func (m *Mesh) passwordListeners() ([]listener, error) {
	config, err := m.tls()
	return []listener{
		{"services", "tcp://" + m.address(m.Ports.MQTT), nil, registrarMQTT},
		{"people", "tcp://" + m.address(m.Ports.People), nil, operatorMQTT},
		{"WebSocket", "wss://" + m.address(m.Ports.WebSocket), config, operatorMQTT},
	}, err
}

// mqttListeners has each secret tried at the listeners that are not for it.
func mqttListeners(ctx context.Context, m *Mesh) Finding {
	listeners, err := m.passwordListeners()
	if err != nil {
		return failed("%v", err)
	}
	var attempts []attempt
	for _, l := range listeners {
		good, goodPassword, err := m.LogIn(ctx, l.secret)
		if err != nil {
			return failed("%v", err)
		}
		for _, secret := range []string{bridgeMQTT, registrarMQTT, operatorMQTT} {
			if (secret == operatorMQTT) == (l.secret == operatorMQTT) {
				continue
			}
			user, password, err := m.LogIn(ctx, secret)
			if err != nil {
				return failed("%v", err)
			}
			attempts = append(attempts, attempt{
				user + " at " + l.name,
				func() error { return m.login(l.url, good, goodPassword, l.config) },
				func() error { return m.login(l.url, user, password, l.config) },
			})
		}
	}
	return refused(attempts)
}

// mqttClientID tells whether a person's client id is its own choice.
func mqttClientID(ctx context.Context, m *Mesh) Finding {
	listeners, err := m.passwordListeners()
	if err != nil {
		return failed("%v", err)
	}
	user, password, err := m.LogIn(ctx, operatorMQTT)
	if err != nil {
		return failed("%v", err)
	}
	var problems []string
	for _, l := range listeners {
		if l.secret != operatorMQTT {
			continue
		}
		var both [2]*client
		for i := range both {
			if both[i], err = m.dial(l.url, user, password, marker(), l.config); err != nil {
				return failed("%s: cannot be tried: %v", l.name, err)
			}
			defer both[i].Disconnect(0)
		}
		select {
		case <-both[0].lost:
		case <-time.After(mqttTimeout / 2):
			problems = append(problems, fmt.Sprintf("%s: %s has the client id that it chose", l.name, user))
		}
	}
	return verdict(problems, "a person's client id is the user's name")
}

// mqttOrigin claims to be a page's script.
func mqttOrigin(ctx context.Context, m *Mesh) Finding {
	from := func(origin string) func() error {
		return func() error { return m.browse(ctx, origin) }
	}
	return refused([]attempt{{"a page of another host", from(""), from("https://" + marker() + ".invalid")}})
}

// browse connects to 9001 for a moment, as the operator.
func (m *Mesh) browse(ctx context.Context, origin string) error {
	config, err := m.tls()
	if err != nil {
		return err
	}
	user, password, err := m.LogIn(ctx, operatorMQTT)
	if err != nil {
		return err
	}
	c, err := m.dialFrom(origin, "wss://"+m.address(m.Ports.WebSocket), user, password, marker(), config)
	if err == nil {
		c.Disconnect(100)
	}
	return err
}

// brokerFiles is what Mosquitto needs: the max_connections of its listeners, and some.
const brokerFiles = 21_000

// mqttConnections looks whether silent connections can keep others out.
func mqttConnections(ctx context.Context, m *Mesh) Finding {
	if err := m.browse(ctx, ""); err != nil {
		return failed("cannot be tried: %v", err)
	}
	closed, end, err := hostile.Open(ctx, hostile.Server{Address: m.address(m.Ports.WebSocket)}, manyIdle, time.Second)
	if err != nil {
		return failed("cannot be tried: %v", err)
	}
	end()
	var problems []string
	if closed == 0 {
		problems = append(problems, fmt.Sprintf("9001 takes %d connections of one address that say nothing", manyIdle))
	}
	if m.Containers { // compose.yaml has the limit, and container-hardening looks at them
		return verdict(problems, "9001 closes %d of %d", closed, manyIdle)
	}
	pid, err := firstNumber(m.path("mosquitto", "data", "mosquitto.pid"))
	if err != nil {
		return notChecked("Mosquitto does not run on this machine's state directory: %v", err)
	}
	files, most, err := openFiles(pid)
	if err != nil {
		return notChecked("%v", err)
	}
	if files < min(most, brokerFiles) {
		problems = append(problems, fmt.Sprintf("Mosquitto may have %d open files: as many silent connections keep all controllers out", files))
	}
	return verdict(problems, "9001 closes %d of %d; Mosquitto may have %d open files", closed, manyIdle, files)
}

// openFiles is how many files a process may have open, and to how many it may raise that.
func openFiles(pid int) (soft, hard int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	if err != nil {
		return 0, 0, err
	}
	_, line, _ := strings.Cut(string(text), "Max open files")
	_, err = fmt.Sscan(strings.ReplaceAll(line, "unlimited", strconv.Itoa(math.MaxInt)), &soft, &hard)
	return soft, hard, err
}

// wrongLogins are attempts on all listeners that take passwords.
func (m *Mesh) wrongLogins(ctx context.Context, wrong func(user string) (string, string)) ([]attempt, error) {
	listeners, err := m.passwordListeners()
	if err != nil {
		return nil, err
	}
	var attempts []attempt
	for _, l := range listeners {
		user, password, err := m.LogIn(ctx, l.secret)
		if err != nil {
			return nil, err
		}
		attempts = append(attempts, attempt{
			l.name,
			func() error { return m.login(l.url, user, password, l.config) },
			func() error {
				user, password := wrong(user)
				return m.login(l.url, user, password, l.config)
			},
		})
	}
	return attempts, nil
}

// certificateAttempt is one on the controllers' listener.
func (m *Mesh) certificateAttempt(name, user, password string, bad ...tls.Certificate) (attempt, error) {
	devices, err := m.devices(1)
	if err != nil {
		return attempt{}, err
	}
	return attempt{
		name,
		func() error { return m.controller("", "", devices[0].certificate) },
		func() error { return m.controller(user, password, bad...) },
	}, nil
}

func (m *Mesh) controller(user, password string, certificates ...tls.Certificate) error {
	config, err := m.tls()
	if err != nil {
		return err
	}
	config.Certificates = certificates
	return m.login("ssl://"+m.address(m.Ports.MQTTTLS), user, password, config)
}

func mqttAnonymous(ctx context.Context, m *Mesh) Finding {
	attempts, err := m.wrongLogins(ctx, func(string) (string, string) { return "", "" })
	if err != nil {
		return failed("%v", err)
	}
	a, err := m.certificateAttempt("controllers", "", "")
	if err != nil {
		return notChecked("%v", err)
	}
	return refused(append(attempts, a))
}

func mqttPassword(ctx context.Context, m *Mesh) Finding {
	attempts, err := m.wrongLogins(ctx, func(user string) (string, string) { return user, marker() })
	if err != nil {
		return failed("%v", err)
	}
	return refused(attempts)
}

func mqttNoCertificate(ctx context.Context, m *Mesh) Finding {
	user, password, err := m.LogIn(ctx, operatorMQTT)
	if err != nil {
		return failed("%v", err)
	}
	a, err := m.certificateAttempt("no certificate", user, password)
	if err != nil {
		return notChecked("%v", err)
	}
	return refused([]attempt{a})
}

func mqttWrongCertificate(_ context.Context, m *Mesh) Finding {
	devices, err := m.devices(1)
	if err != nil {
		return notChecked("%v", err)
	}
	forged, err := selfSigned(devices[0].mac, m.Now())
	if err != nil {
		return failed("%v", err)
	}
	a, err := m.certificateAttempt("self-signed certificate", "", "", forged)
	if err != nil {
		return notChecked("%v", err)
	}
	return refused([]attempt{a})
}

// party are two controllers and a person who looks on.
type party struct {
	one, two         *client
	onlooker         *client
	oneName, twoName string
}

func (p *party) close() {
	for _, c := range []*client{p.one, p.two, p.onlooker} {
		if c != nil {
			c.Disconnect(100)
		}
	}
}

// meet connects all three.
func (m *Mesh) meet(ctx context.Context) (*party, error) {
	devices, err := m.devices(2)
	if err != nil {
		return nil, err
	}
	user, password, err := m.LogIn(ctx, operatorMQTT)
	if err != nil {
		return nil, err
	}
	p := &party{oneName: devices[0].mac, twoName: devices[1].mac}
	if p.onlooker, err = m.dial("tcp://"+m.address(m.Ports.People), user, password, marker(), nil); err != nil {
		return nil, err
	}
	for i, c := range []**client{&p.one, &p.two} {
		config, err := m.tls()
		if err == nil {
			config.Certificates = []tls.Certificate{devices[i].certificate}
			*c, err = m.dial("ssl://"+m.address(m.Ports.MQTTTLS), "", "", devices[i].mac, config)
		}
		if err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

// partyAttempts is how often a check with controllers begins again: a controller
// that is really there takes its session back.
const partyAttempts = 5

func (m *Mesh) withParty(ctx context.Context, check func(*party) ([]string, error)) Finding {
	var err error
	for range partyAttempts {
		var p *party
		if p, err = m.meet(ctx); errors.Is(err, errNoDevices) {
			return notChecked("%v", err)
		}
		if err == nil {
			var problems []string
			problems, err = check(p)
			p.close()
			if err == nil {
				return verdict(problems, "nothing got through, and what is allowed did")
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return failed("cannot be tried: %v", err)
}

// mqttPublish publishes on foreign topics and then on an own one: the broker keeps
// the order, so that the second's arrival shows that the first were dropped.
func mqttPublish(ctx context.Context, m *Mesh) Finding {
	return m.withParty(ctx, func(p *party) ([]string, error) {
		id := marker()
		own := "tele/f2-" + p.oneName + "/" + id
		foreign := []string{
			"tele/f2-" + p.twoName + "/" + id, "stat/f2-" + p.twoName + "/" + id,
			"cmnd/f2-" + p.twoName + "/sensor-mode/1/" + id, id + "/" + id,
		}
		if err := p.onlooker.subscribe(append(foreign, own)...); err != nil {
			return nil, err
		}
		if err := p.one.publish(append(foreign, own)...); err != nil {
			return nil, err
		}
		seen, err := p.onlooker.until(own)
		return prefix("arrived: ", slices.DeleteFunc(seen, func(t string) bool { return t == own })), err
	})
}

// mqttSubscribe has one controller listen to the other, and to all. Its own
// publish, which it may read, comes last.
func mqttSubscribe(ctx context.Context, m *Mesh) Finding {
	return m.withParty(ctx, func(p *party) ([]string, error) {
		id := marker()
		foreign, fence := "tele/f2-"+p.twoName+"/"+id, "cmnd/f2-"+p.oneName+"/sensor-mode/1/"+id
		if err := p.onlooker.subscribe(foreign); err != nil {
			return nil, err
		}
		if err := p.one.subscribe(fence); err != nil {
			return nil, err
		}
		for _, filter := range []string{"#", "tele/f2-" + p.twoName + "/#"} {
			_ = p.one.subscribe(filter) // a refusal is what we want
		}
		if err := p.two.publish(foreign); err != nil {
			return nil, err
		}
		if _, err := p.onlooker.until(foreign); err != nil {
			return nil, err
		}
		if err := p.one.publish(fence); err != nil {
			return nil, err
		}
		seen, err := p.one.until(fence)
		return prefix("arrived: ", slices.DeleteFunc(seen, func(t string) bool {
			return strings.HasPrefix(t, "cmnd/f2-"+p.oneName) || strings.HasPrefix(t, "cmnd/f2-"+strings.ReplaceAll(p.oneName, "-", ""))
		})), err
	})
}

func prefix(before string, all []string) []string {
	slices.Sort(all)
	all = slices.Compact(all)
	for i := range all {
		all[i] = before + all[i]
	}
	return all
}

// mqttFailedLogins listens to the broker's log, as the registrar does.
func mqttFailedLogins(ctx context.Context, m *Mesh) Finding {
	user, password, err := m.LogIn(ctx, registrarMQTT)
	if err != nil {
		return failed("%v", err)
	}
	url := "tcp://" + m.address(m.Ports.MQTT)
	watch, err := m.dial(url, user, password, marker(), nil)
	if err != nil {
		return failed("the log cannot be read: %v", err)
	}
	defer watch.Disconnect(100)
	found := make(chan struct{}, 1)
	err = done(watch.Subscribe("$SYS/broker/log/#", 1, func(_ mqtt.Client, message mqtt.Message) {
		if strings.Contains(string(message.Payload()), "not authorised") { // Mosquitto 2.0.11 does not name the client
			select {
			case found <- struct{}{}:
			default:
			}
		}
	}))
	if err != nil {
		return failed("the log cannot be read: %v", err)
	}
	if c, err := m.dial(url, user, marker(), marker(), nil); err == nil {
		c.Disconnect(100)
		return failed("a wrong password was let in")
	}
	select {
	case <-found:
		return ok("the broker logged the attempt")
	case <-time.After(mqttTimeout):
		return failed("the broker logged nothing of the attempt")
	}
}
