package main

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// misuse is what somebody tries with what the mesh gave them. It answers what they got
// by it; "" if nothing.
type misuse struct {
	name string
	do   func(t *testing.T, m *testMesh) (loot string)
}

// TestAttacksOnMesh carries out on a whole mesh what succeeded on one that did not have the
// walls of docs/security.md, with the logins that people, services and controllers have.
// The attacks that take more than a mesh, such as a second one, are tests of their own,
// which that page names.
func TestAttacksOnMesh(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(cfg *meshConfig) { cfg.Registrar.Limits.SourceBurst = 1000 })
	t.Run("before", func(t *testing.T) { m.startProof(t).finish(t) }) // its controller leaves at the end
	for _, a := range slices.Concat(attacksOnNATS(), attacksOnMQTT(), attacksOnHTTP(), attacksOnEST(), attacksOnTheMachine()) {
		t.Run(a.name, func(t *testing.T) { assert.Empty(t, a.do(t, m)) })
	}
	m.startProof(t).finish(t) // the control: the mesh goes on as if nothing had been
}

// as connects one of the mesh's NATS users.
func (m *testMesh) as(t *testing.T, user string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect("tls://"+m.Address(m.Ports().NATS), nats.RootCAs(m.Authority.CAFile()),
		nats.UserInfo(user, m.password(t, "nats_"+user+"_password")), nats.CustomInboxPrefix("_INBOX_"+user),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// within polls until check answers true, or the time is over.
func within(limit time.Duration, check func() bool) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if check() {
			return true
		}
	}
	return check()
}

// aCommand is something that the console may publish, with a content of its own.
const aCommand = "f2.command." + string(mac) + ".access-control-mode.9.attack"

// ask sends a request and does not mind what becomes of it.
func ask(nc *nats.Conn, subject, body string) {
	_, _ = nc.Request(subject, []byte(body), 2*time.Second)
}

// pushes has the console make a consumer of its command that delivers to a subject.
func pushes(t *testing.T, m *testMesh, content []byte, subject string) {
	t.Helper()
	nc := m.as(t, "console")
	_, err := nc.Request(aCommand, content, 5*time.Second)
	require.NoError(t, err, "the control: commands are its own")
	_, err = nc.SubscribeSync(subject) // JetStream delivers where somebody listens
	require.NoError(t, err)
	name := fmt.Sprintf("thief%d", time.Now().UnixNano())
	ask(nc, "$JS.API.CONSUMER.CREATE.COMMANDS."+name+"."+aCommand, fmt.Sprintf(
		`{"stream_name":"COMMANDS","config":{"name":%q,"deliver_subject":%q,"deliver_policy":"last","ack_policy":"none","filter_subject":%q}}`, name, subject, aCommand))
}

// forges is an attack that puts an entry into the audit trail, which nobody can delete.
func forges(user, name string, try func(t *testing.T, m *testMesh, nc *nats.Conn, subject string)) misuse {
	return misuse{user + " forges history by " + name, func(t *testing.T, m *testMesh) (loot string) {
		t.Helper()
		before := m.lastAudit(t)
		try(t, m, m.as(t, user), "f2.audit.attack."+strings.ReplaceAll(name, " ", "-"))
		trail, err := m.js.Stream(t.Context(), stream.Audit)
		require.NoError(t, err)
		within(2*time.Second, func() bool {
			for ; loot == "" && before < m.lastAudit(t); before++ {
				msg, err := trail.GetMsg(t.Context(), before+1)
				require.NoError(t, err)
				var e registrar.Event
				if json.Unmarshal(msg.Data, &e) != nil || e.Actor == "" {
					loot = "AUDIT has " + string(msg.Data)
				}
			}
			return loot != ""
		})
		return loot
	}}
}

// lastAudit is the audit trail's last sequence.
func (m *testMesh) lastAudit(t *testing.T) uint64 {
	t.Helper()
	trail, err := m.js.Stream(t.Context(), stream.Audit)
	require.NoError(t, err)
	return trail.CachedInfo().State.LastSeq
}

func attacksOnNATS() []misuse {
	update := func(t *testing.T, m *testMesh, nc *nats.Conn, name string, change func(*jetstream.StreamConfig)) {
		t.Helper()
		s, err := m.js.Stream(t.Context(), name)
		require.NoError(t, err)
		cfg := s.CachedInfo().Config
		change(&cfg)
		body, err := json.Marshal(cfg)
		require.NoError(t, err)
		ask(nc, "$JS.API.STREAM.UPDATE."+name, string(body))
	}
	return []misuse{
		forges("console", "a push consumer", func(t *testing.T, m *testMesh, _ *nats.Conn, subject string) {
			t.Helper()
			pushes(t, m, []byte(`{"action":"forged"}`), subject)
		}),
		forges("console", "a pull", func(t *testing.T, _ *testMesh, nc *nats.Conn, subject string) {
			t.Helper()
			_, err := nc.SubscribeSync(subject)
			require.NoError(t, err)
			ask(nc, "$JS.API.CONSUMER.CREATE.COMMANDS.puller", `{"stream_name":"COMMANDS","config":{"name":"puller","ack_policy":"none"}}`)
			for _, consumer := range []string{"puller", "bridge"} {
				require.NoError(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.COMMANDS."+consumer, subject, []byte("1")))
			}
		}),
		forges("console", "a direct get", func(t *testing.T, _ *testMesh, nc *nats.Conn, subject string) {
			t.Helper()
			body := fmt.Appendf(nil, `{"last_by_subj":%q}`, aCommand)
			answer, err := nc.Request("$JS.API.DIRECT.GET.COMMANDS", body, 5*time.Second)
			require.NoError(t, err)
			require.Contains(t, string(answer.Data), "forged", "the control: it may read")
			require.NoError(t, nc.PublishRequest("$JS.API.DIRECT.GET.COMMANDS", subject, body))
		}),
		forges("console", "an answer of the bridge", func(t *testing.T, _ *testMesh, nc *nats.Conn, subject string) {
			t.Helper()
			_, err := nc.Request("$SRV.PING.f2mesh-bridge", nil, 5*time.Second)
			require.NoError(t, err, "the control: it may ask")
			require.NoError(t, nc.PublishRequest("$SRV.PING.f2mesh-bridge", subject, nil))
		}),
		forges("writer", "republishing", func(t *testing.T, m *testMesh, nc *nats.Conn, subject string) {
			t.Helper()
			update(t, m, nc, "DEAD_LETTER", func(cfg *jetstream.StreamConfig) {
				cfg.RePublish = &jetstream.RePublish{Source: "f2.dead.writer.attack", Destination: subject}
			})
			_, err := nc.Request("f2.dead.writer.attack", []byte("forged"), 5*time.Second)
			require.NoError(t, err, "the control: dead letters are its own")
		}),
		{"console forges a reading", func(t *testing.T, m *testMesh) string {
			t.Helper()
			forged := event.Decoded{
				ID: event.ID{15: 1}, Time: time.Now(), Received: time.Now(), Root: "tele", MAC: string(mac), Mode: "sensor-mode", Connector: 1,
				Component: "sensor-1", ControllerID: 1, DeviceID: 2, Device: "forged", Values: []event.DataPoint{{DataPointID: 1, Label: "forged", Number: 666}},
			}
			pushes(t, m, forged.AppendJSON(nil), "f2.decoded."+string(mac)+".sensor-mode.1.sensor-1")
			if within(5*time.Second, func() bool { return m.count(t, "SELECT count(*) FROM measurement WHERE value = 666") > 0 }) {
				return "measurement has the value 666"
			}
			return ""
		}},
		{"bridge cuts RAW to one message", func(t *testing.T, m *testMesh) string {
			t.Helper()
			messages := func() uint64 {
				s, err := m.js.Stream(t.Context(), "RAW")
				require.NoError(t, err)
				return s.CachedInfo().State.Msgs
			}
			before := messages()
			require.Greater(t, before, uint64(1))
			update(t, m, m.as(t, "bridge"), "RAW", func(cfg *jetstream.StreamConfig) { cfg.MaxMsgs, cfg.Discard = 1, jetstream.DiscardOld })
			if after := messages(); after < before {
				return fmt.Sprintf("RAW has %d messages of %d", after, before)
			}
			return ""
		}},
		{"writer answers as the bridge", func(t *testing.T, m *testMesh) string {
			t.Helper()
			writer := m.as(t, "writer")
			for _, subject := range []string{"$SRV.>", "f2.ready.bridge"} {
				_, err := writer.Subscribe(subject, func(msg *nats.Msg) { _ = msg.Respond([]byte("forged")) })
				require.NoError(t, err)
			}
			require.NoError(t, writer.Flush())
			operator := m.as(t, "operator")
			for _, subject := range []string{"$SRV.STATS.f2mesh-bridge", "f2.ready.bridge"} {
				inbox := operator.NewInbox()
				answers, err := operator.SubscribeSync(inbox)
				require.NoError(t, err)
				require.NoError(t, operator.PublishRequest(subject, inbox, nil))
				msg, err := answers.NextMsg(5 * time.Second)
				require.NoError(t, err, "the control: the bridge answers")
				for ; err == nil; msg, err = answers.NextMsg(time.Second) {
					if string(msg.Data) == "forged" {
						return subject + " was answered by the writer"
					}
				}
			}
			return ""
		}},
	}
}

// attacksOnMQTT have a person come as the bridge, with the session that the broker keeps
// for it while it is away.
func attacksOnMQTT() (all []misuse) {
	for name, one := range map[string]struct {
		scheme, origin string
		port           func(mesh.Ports) int
	}{
		"1883":                            {"tcp", "", func(p mesh.Ports) int { return p.MQTT }},
		"9001":                            {"wss", "", func(p mesh.Ports) int { return p.WebSocket }},
		"9001 from a page of other hosts": {"wss", "https://elsewhere.example.org", func(p mesh.Ports) int { return p.WebSocket }},
	} {
		all = append(all, misuse{"operator takes the bridge's session at " + name, func(t *testing.T, m *testMesh) string {
			t.Helper()
			const topic = "tele/f2-" + string(mac) + "/alarm-mode/J3/siren-1"
			stored := func(text string) bool {
				return slices.ContainsFunc(m.messages(t, "RAW"), func(data []byte) bool { return strings.Contains(string(data), text) })
			}
			sent := fmt.Sprintf(`{"status":true,"attack":"%d"}`, time.Now().UnixNano())
			client := m.device(t, mac)
			require.NoError(t, m.Stop(local.PartBridge))
			publish(t, client, topic, sent)
			arrived := make(chan struct{}, 100)
			thief := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(one.scheme + "://" + m.Address(one.port(m.Ports()))).
				SetClientID(m.Cfg.ClientID).SetCleanSession(false).SetAutoReconnect(false).SetConnectTimeout(5 * time.Second).
				SetUsername("operator").SetPassword(m.password(t, mesh.SecretMQTTOperator)).SetHTTPHeaders(http.Header{"Origin": {one.origin}}).
				SetTLSConfig(&tls.Config{RootCAs: m.roots(t), MinVersion: tls.VersionTLS12}).
				SetDefaultPublishHandler(func(mqtt.Client, mqtt.Message) { arrived <- struct{}{} }))
			if token := thief.Connect(); token.WaitTimeout(10*time.Second) && token.Error() == nil {
				select {
				case <-arrived:
				case <-time.After(2 * time.Second):
				}
				thief.Disconnect(500)
			}
			require.NoError(t, m.Start(t.Context(), local.PartBridge))
			last := strings.Replace(sent, "attack", "last", 1)
			publish(t, client, topic, last)
			eventually(t, func() bool { return stored(last) }, "the control: what comes next")
			if !stored(sent) {
				return "what was acknowledged to the controller never reached RAW"
			}
			return ""
		}})
	}
	return all
}

// attacker is for the server at a port.
func (m *testMesh) attacker(t *testing.T, port int, path string) hostile.Victim {
	t.Helper()
	return hostile.Victim{
		Address: m.Address(port), Path: path,
		TLS: &tls.Config{RootCAs: m.roots(t), ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12},
	}
}

// reached asks the server as another machine does.
func (m *testMesh) reached(t *testing.T, server hostile.Victim) error {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 3)}}
	client := &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: server.TLS.Clone(), DialContext: dialer.DialContext,
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+server.Address+server.Path, http.NoBody)
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

func attacksOnHTTP() []misuse {
	return []misuse{
		{"a stranger fills the health API's memory with headers", func(t *testing.T, m *testMesh) string {
			t.Helper()
			all := hostile.Attacks("/healthz")
			large := all[slices.IndexFunc(all, func(a hostile.Attack) bool { return a.Name == "large header" })]
			server := m.attacker(t, m.Ports().HTTP, "/healthz")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var before, now runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var attackers sync.WaitGroup
			for i := range 230 {
				from := server
				from.From = net.IPv4(127, 0, 1, byte(1+i%8)).String()
				attackers.Go(func() { _, _ = large.Do(ctx, from) })
			}
			done := make(chan struct{})
			go func() { attackers.Wait(); close(done) }()
			peak := uint64(0)
			for open := true; open; {
				select {
				case <-done:
					open = false
				case <-time.After(100 * time.Millisecond):
				}
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapInuse-min(now.HeapInuse, before.HeapInuse))
			}
			t.Log(peak>>20, "MiB, with the attackers' own and the other parts of the mesh")
			if peak > 256<<20 {
				return fmt.Sprintf("%d MiB", peak>>20)
			}
			return ""
		}},
		{"one machine takes as many connections of the health API as it likes", func(t *testing.T, m *testMesh) string {
			t.Helper()
			const many = 300
			server := m.attacker(t, m.Ports().HTTP, "/healthz")
			closed, end, err := hostile.Open(t.Context(), server, many, time.Second)
			require.NoError(t, err)
			defer end()
			require.NoError(t, m.reached(t, server), "the control: another machine is served")
			if closed < many/2 {
				return fmt.Sprintf("it holds %d of %d", many-closed, many)
			}
			return ""
		}},
	}
}

func attacksOnEST() []misuse {
	guess := func(t *testing.T, m *testMesh, name string) int {
		t.Helper()
		_, csr := newRequest(t, pkix.Name{})
		status, _ := m.enrol(t, enrolment{operation: "simpleenroll", user: name, code: "guess", csr: csr})
		return status
	}
	pair := func(t *testing.T, m *testMesh, controller fleet.Controller) tls.Certificate {
		t.Helper()
		dir := filepath.Join(m.State.DevicesDir(), controller.MAC.Dashed())
		own, err := tls.LoadX509KeyPair(filepath.Join(dir, "device.crt"), filepath.Join(dir, "device.key"))
		require.NoError(t, err)
		return own
	}
	renew := func(t *testing.T, m *testMesh, own tls.Certificate) int {
		t.Helper()
		_, csr := newRequest(t, own.Leaf.Subject)
		status, _ := m.enrol(t, enrolment{operation: "simplereenroll", certificate: &own, csr: csr})
		return status
	}
	return []misuse{
		{"a controller renews again and again", func(t *testing.T, m *testMesh) string {
			t.Helper()
			own, renewed := pair(t, m, fleet.Demo(3)[1]), 0
			for range 4 {
				if renew(t, m, own) == http.StatusOK {
					renewed++
				}
			}
			if renewed > 1 {
				return fmt.Sprintf("it has %d certificates more", renewed)
			}
			return ""
		}},
		{"a stranger's wrong codes block a controller's renewal", func(t *testing.T, m *testMesh) string {
			t.Helper()
			for range 10 {
				guess(t, m, string(mac))
			}
			if status := renew(t, m, pair(t, m, fleet.Demo(3)[0])); status == http.StatusTooManyRequests {
				return fmt.Sprintf("its renewal was answered %d", status)
			}
			return ""
		}},
		{"a stranger guesses anew after a restart", func(t *testing.T, m *testMesh) string {
			t.Helper()
			const guessed = "aabbccddee01"
			m.claimable(t, guessed, 9002, "one good code")
			require.Equal(t, http.StatusUnauthorized, guess(t, m, guessed), "the control: the first is looked at")
			for range 10 {
				guess(t, m, guessed)
			}
			require.NoError(t, m.Stop(local.PartRegistrar))
			require.NoError(t, m.Start(t.Context(), local.PartRegistrar))
			if guess(t, m, guessed) == http.StatusUnauthorized {
				return "another wrong code was looked at"
			}
			return ""
		}},
		{"a stranger fills the audit trail", func(t *testing.T, m *testMesh) string {
			t.Helper()
			const many = 40
			before := m.lastAudit(t)
			for i := range many {
				guess(t, m, fmt.Sprintf("0000000000%02x", i))
			}
			more := uint64(0)
			if within(3*time.Second, func() bool { more = m.lastAudit(t) - before; return more >= many/2 }) {
				return fmt.Sprintf("%d entries of %d requests", more, many)
			}
			return ""
		}},
	}
}

func attacksOnTheMachine() []misuse {
	return []misuse{
		{"a neighbour reaches what is documented on loopback", func(t *testing.T, m *testMesh) string {
			t.Helper()
			const elsewhere = "127.0.0.2" // reached if somebody listens on every interface
			var reached []string
			text, err := json.Marshal(m.Ports())
			require.NoError(t, err)
			listeners := map[string]int{}
			require.NoError(t, json.Unmarshal(text, &listeners))
			for name, number := range listeners {
				for _, host := range []string{m.Cfg.Host, elsewhere} {
					conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", net.JoinHostPort(host, strconv.Itoa(number)))
					if host == m.Cfg.Host {
						require.NoError(t, err, "the control: %s", name)
					}
					if err == nil {
						_ = conn.Close()
						if host == elsewhere {
							reached = append(reached, name)
						}
					}
				}
			}
			return strings.Join(reached, ", ")
		}},
		{"a service reads the root's key", func(t *testing.T, m *testMesh) string {
			t.Helper()
			const folder = "pki" // with the issuer's, which the registrar signs with
			require.FileExists(t, m.State.Path(folder, "issuer.key"), "the control")
			if key, err := os.ReadFile(m.State.Path(folder, "root.key")); err == nil {
				return fmt.Sprintf("%d bytes of root.key", len(key))
			}
			return ""
		}},
	}
}
