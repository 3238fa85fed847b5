package doctor

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
)

func mqttAnonymous(ctx context.Context, t *Target) Finding {
	valid := t.controller(t.needDevices(1)[0].certificate)
	return refused(t.services(ctx).with(login{}), t.people(ctx).with(login{}), t.webSocket(ctx).with(login{}),
		attempt{"controllers", valid.try, t.controller().try})
}

func mqttPassword(ctx context.Context, t *Target) Finding {
	wrong := func(l mqttLogin) attempt { return l.with(login{l.user, marker()}) }
	return refused(wrong(t.services(ctx)), wrong(t.people(ctx)), wrong(t.webSocket(ctx)))
}

func mqttListeners(ctx context.Context, t *Target) Finding {
	at := func(l mqttLogin, secret string) attempt {
		a := l.with(t.login(ctx, secret))
		a.name = t.login(ctx, secret).user + " at " + l.listener
		return a
	}
	return refused(at(t.services(ctx), operatorMQTT), at(t.people(ctx), bridgeMQTT), at(t.people(ctx), registrarMQTT),
		at(t.webSocket(ctx), bridgeMQTT), at(t.webSocket(ctx), registrarMQTT))
}

func mqttClientID(ctx context.Context, t *Target) Finding {
	var problems []string
	for _, l := range []mqttLogin{t.people(ctx), t.webSocket(ctx)} {
		first := must(l.connect())
		defer first.Disconnect(0)
		second := must(l.connect())
		defer second.Disconnect(0)
		select {
		case <-first.lost:
		case <-time.After(mqttTimeout / 2):
			problems = append(problems, fmt.Sprintf("%s: %s may choose a client id", l.listener, l.user))
		}
	}
	return verdict(problems, "the client id is the user's name")
}

func mqttOrigin(ctx context.Context, t *Target) Finding {
	program := t.webSocket(ctx)
	page := program
	page.origin = "https://" + marker() + ".invalid"
	return refused(attempt{"a page of another host", program.try, page.try})
}

// mqttConnections checks that idle connections cannot lock others out.
func mqttConnections(ctx context.Context, t *Target) Finding {
	ensure(t.webSocket(ctx).try())
	closed, problems := idle(ctx, hostile.Victim{Address: t.address(t.Ports.WebSocket)})
	if t.Containers { // container-hardening checks the limits of containers
		return verdict(problems, "9001 closed %d of %d idle connections", closed, manyIdle)
	}
	soft, hard := openFiles(runningPID("Mosquitto", t.path("mosquitto", "data", "mosquitto.pid")))
	const needed = 21_000 // max_connections of its listeners, and some
	if soft < min(hard, needed) {
		problems = append(problems, fmt.Sprintf("Mosquitto may have %d open files: as many idle connections lock out all controllers", soft))
	}
	return verdict(problems, "9001 closed %d of %d idle connections; Mosquitto may have %d open files", closed, manyIdle, soft)
}

// openFiles is how many files a process may have open, and to how many it may raise that.
func openFiles(pid int) (soft, hard int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
	need(err == nil, "this system does not show the limits of processes: %v", err)
	_, line, _ := strings.Cut(string(text), "Max open files")
	must(fmt.Sscan(strings.ReplaceAll(line, "unlimited", strconv.Itoa(math.MaxInt)), &soft, &hard))
	return soft, hard
}

func mqttNoCertificate(ctx context.Context, t *Target) Finding {
	without := t.controller()
	without.login = t.login(ctx, operatorMQTT)
	return refused(attempt{"no certificate", t.controller(t.needDevices(1)[0].certificate).try, without.try})
}

func mqttWrongCertificate(_ context.Context, t *Target) Finding {
	d := t.needDevices(1)[0]
	forged := selfSigned(d.mac, t.Now())
	return refused(attempt{"self-signed certificate", t.controller(d.certificate).try, t.controller(forged).try})
}

// mqttPublish publishes on foreign topics and then on an own one. The broker keeps the order:
// when the last one has arrived, the others were dropped.
func mqttPublish(ctx context.Context, t *Target) Finding {
	return t.withPeople(ctx, func(p *people) []string {
		id := marker()
		return p.overheard("tele/f2-"+p.oneName+"/"+id, "tele/f2-"+p.twoName+"/"+id, "stat/f2-"+p.twoName+"/"+id,
			"cmnd/f2-"+p.twoName+"/sensor-mode/1/"+id, id+"/"+id)
	})
}

// overheard publishes on topics as controller one, on own as the last, and returns those that
// the operator receives before it.
func (p *people) overheard(own string, topics ...string) []string {
	topics = append(topics, own)
	p.operator.subscribe(topics...)
	p.one.publish(topics...)
	return p.operator.until(own)
}

// mqttSubscribe subscribes controller one to the topics of controller two, and to all. A
// publish of its own, which it may receive, comes last.
func mqttSubscribe(ctx context.Context, t *Target) Finding {
	return t.withPeople(ctx, func(p *people) []string {
		id := marker()
		foreign, own := "tele/f2-"+p.twoName+"/"+id, "cmnd/f2-"+p.oneName+"/sensor-mode/1/"+id
		p.operator.subscribe(foreign)
		p.one.subscribe(own)
		for _, filter := range []string{"#", "tele/f2-" + p.twoName + "/#"} {
			_ = done(p.one.Subscribe(filter, 1, nil)) // may be refused
		}
		p.two.publish(foreign)
		p.operator.until(foreign)
		p.one.publish(own)
		return slices.DeleteFunc(p.one.until(own), func(topic string) bool {
			return strings.HasPrefix(topic, "cmnd/f2-"+p.oneName) || strings.HasPrefix(topic, "cmnd/f2-"+strings.ReplaceAll(p.oneName, "-", ""))
		})
	})
}

// mqttFailedLogins reads the broker's log as the registrar does.
func mqttFailedLogins(ctx context.Context, t *Target) Finding {
	services := t.services(ctx)
	log := must(services.connect())
	defer log.Disconnect(100)
	log.subscribe("$SYS/broker/log/#")
	if services.with(login{services.user, marker()}).try() == nil {
		return failed("a wrong password was accepted")
	}
	_, logged := log.await(func(m mqtt.Message) bool {
		return strings.Contains(string(m.Payload()), "not authorised") // Mosquitto 2.0.11 does not name the client
	})
	if !logged {
		return failed("the broker did not log the attempt")
	}
	return ok("the broker logged the attempt")
}

// brokerQueue reads the file, since Mosquitto does not show its settings.
func brokerQueue(_ context.Context, t *Target) Finding {
	need(!t.Containers, "the broker's configuration is in a volume")
	text, err := os.ReadFile(t.path("mosquitto", "mosquitto.conf"))
	need(err == nil, "the broker's configuration is not here: %v", err)
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		set[name] = strings.TrimSpace(value)
	}
	number := func(name string) int {
		n, _ := strconv.Atoi(set[name]) // 0: not set
		return n
	}
	wrong := map[string]bool{
		"persistence":          set["persistence"] != "true",
		"autosave_interval":    set["autosave_on_changes"] != "true" && (number("autosave_interval") < 1 || number("autosave_interval") > 60), // seconds, 1800 by default
		"max_queued_messages":  number("max_queued_messages") < 1_000_000 || number("max_queued_messages") > 100_000_000,                      // 1,000 by default, 0 disconnects clients
		"max_queued_bytes":     number("max_queued_bytes") < 64<<20,
		"upgrade_outgoing_qos": set["upgrade_outgoing_qos"] != "true",
		"max_packet_size":      number("max_packet_size") < 1<<20,
		"memory_limit":         number("memory_limit") < 1<<30,    // else the kernel kills a broker that one controller has filled
		"message_size_limit":   number("message_size_limit") != 0, // acknowledges what it drops
	}
	var problems []string
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		if wrong[name] {
			problems = append(problems, fmt.Sprintf("%s is %q", name, set[name]))
		}
	}
	if len(problems) == 0 && set["retain_available"] != "false" {
		return warning("retained messages are on (F2MESH_MQTT_RETAINED): each controller can fill the broker's memory with them permanently")
	}
	return verdict(problems, "the broker saves every %s s or at each change; up to %s bytes are queued for a client, and %s for all",
		set["autosave_interval"], set["max_queued_bytes"], set["memory_limit"])
}

// brokerVersion publishes in upper case. Mosquitto publishes its version as a retained
// message, and retained messages are off.
func brokerVersion(ctx context.Context, t *Target) Finding {
	arrives := false
	t.withPeople(ctx, func(p *people) []string {
		id := marker()
		arrives = len(p.overheard("tele/f2-"+p.oneName+"/"+id, "tele/f2-"+strings.ToUpper(p.oneName)+"/"+id)) > 0
		return nil
	})
	if !arrives {
		return warning("the broker is older than Mosquitto 2.1. Its ACL grants two of the six spellings of a controller's MAC. " +
			"It acknowledges and drops what is published in upper case or with colons, which raises the alarm connected_but_unheard. " +
			"It also stops at each change of the fleet: 0.3 s with 5,000 controllers, 4 s with 20,000")
	}
	return ok("the broker grants all spellings of a controller's MAC")
}
