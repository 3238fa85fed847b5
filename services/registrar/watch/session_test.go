package watch

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

const device = "e4fd45f654be"

func testConfig() Config {
	return Config{
		ExpiryWarning: 720 * time.Hour, CRLWarning: 48 * time.Hour, SilentAfter: 5 * time.Minute, UnheardAfter: 90 * time.Second,
		Takeovers: 3, TakeoverWindow: 5 * time.Minute, FailedLogins: 4, FailedWindow: time.Minute,
		Interval: time.Minute, MQTTURL: "tcp://127.0.0.1:1883",
	}
}

// follower feeds lines to sessions at times of its own.
type follower struct {
	*sessions
	now time.Time
}

func newFollower() *follower {
	cfg := testConfig()
	return &follower{newSessions(&cfg), time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}
}

// reads answers the alarms that the lines raise, as kind and subject.
func (f *follower) reads(lines ...string) (raised []string) {
	for _, line := range lines {
		o := parse(line)
		for _, found := range f.observe(&o, f.now) {
			if found.kind != "" {
				raised = append(raised, found.kind+" "+found.subject)
			}
		}
	}
	return raised
}

func (f *follower) over() (over []string) {
	for _, found := range f.expire(f.now) {
		over = append(over, found.kind+" "+found.subject)
	}
	return over
}

// takeover is what Mosquitto writes when a second connection comes.
func takeover(address string) []string {
	return []string{
		"1795617623: New connection from " + address + " on port 28883.",
		"1795617623: Client e4-fd-45-f6-54-be already connected, closing old connection.",
		"1795617623: New client connected from " + address + " as e4-fd-45-f6-54-be (p2, c1, k60, u'e4-fd-45-f6-54-be').",
	}
}

func TestClone(t *testing.T) {
	t.Parallel()
	f := newFollower()
	assert.Empty(t, f.reads(takeover("192.0.2.1:1000")...), "a device may reconnect before the broker has noticed that it was gone")
	f.now = f.now.Add(time.Minute)
	assert.Empty(t, f.reads(takeover("192.0.2.2:1000")...))
	f.now = f.now.Add(time.Minute)
	assert.Equal(t, []string{"clone " + device}, f.reads(takeover("192.0.2.1:1001")...), "two machines take turns")
	f.now = f.now.Add(4 * time.Minute)
	assert.NotContains(t, f.over(), "clone "+device)
	f.now = f.now.Add(2 * time.Minute)
	assert.Contains(t, f.over(), "clone "+device)

	for range 10 { // one reconnect after another, each long after the last
		assert.Empty(t, f.reads(takeover("192.0.2.1:1000")...))
		f.now = f.now.Add(3 * time.Minute)
	}
}

// The registrar ends the session of a revoked device by its client id.
func TestKickIsNoClone(t *testing.T) {
	t.Parallel()
	f := newFollower()
	for range 10 {
		assert.Empty(t, f.reads(
			"1795617623: Client e4-fd-45-f6-54-be already connected, closing old connection.",
			"1795617623: New client connected from 127.0.0.1:1000 as e4-fd-45-f6-54-be (p2, c1, k10, u'registrar').",
			"1795617623: New client connected from 127.0.0.1:1001 as e4-fd-45-f6-54-be (p2, c1, k60, u'e4-fd-45-f6-54-be').",
		))
	}
}

func TestFailedLogins(t *testing.T) {
	t.Parallel()
	f := newFollower()
	tlsError := []string{
		"1795617624: New connection from 192.0.2.7:48334 on port 28883.",
		"1795617624: OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed",
		"1795617624: Client <unknown> disconnected: Protocol error.",
	}
	password := []string{
		"1795617624: New connection from 192.0.2.8:1 on port 21883.",
		"1795617624: Client <unknown> disconnected, not authorised.",
	}
	assert.Empty(t, f.reads(tlsError...))
	assert.Empty(t, f.reads(password...))
	assert.Empty(t, f.reads(password...))
	assert.Empty(t, f.reads(tlsError[:2]...))
	o := parse(tlsError[2])
	found := f.observe(&o, f.now)[0]
	assert.Equal(t, FailedLogins, found.kind)
	assert.Contains(t, found.detail, "password (2), tls: certificate verify failed (2)")
	assert.Contains(t, found.detail, "192.0.2.7 (1), 192.0.2.8 (1)")
	assert.Empty(t, f.reads(password...), "told of once")
	assert.NotContains(t, f.over(), "failed_logins broker")
	f.now = f.now.Add(2 * time.Minute)
	assert.Contains(t, f.over(), "failed_logins broker")
	assert.Empty(t, f.waiting)
	for range 10 {
		assert.Empty(t, f.reads(password...), "one every two minutes is no attack")
		f.now = f.now.Add(2 * time.Minute)
	}

	const atOnce = "1795619491: Client connection from 192.0.2.9 failed: error:0A0000C7:SSL routines::peer did not return a certificate."
	assert.Equal(t, observation{kind: turnedAway, address: "192.0.2.9", text: reasonTLS, why: "peer did not return a certificate"}, parse(atOnce))
	assert.Equal(t, []string{"failed_logins broker"}, f.reads(atOnce, atOnce, atOnce, atOnce))

	// What an ordinary end looks like.
	f.now = f.now.Add(time.Hour)
	for range 10 {
		assert.Empty(t, f.reads(
			"1795617624: New connection from 192.0.2.8:1 on port 21883.",
			"1795617624: New client connected from 192.0.2.8:1 as x (p2, c1, k60, u'bridge').",
			"1795617624: OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading",
			"1795617624: Client e4-fd-45-f6-54-be closed its connection.",
			"1795617624: Client <unknown> closed its connection.",
			"1795617624: Client e4-fd-45-f6-54-be disconnected.",
		))
	}
}

func TestForeignTopic(t *testing.T) {
	t.Parallel()
	f := newFollower()
	const line = "1795617624: Denied PUBLISH from e4-fd-45-f6-54-be (d0, q1, r0, m1, 'tele/f2-e4fd45f654bf/it's (x, ')', ... (95 bytes))"
	assert.Equal(t, []string{"foreign_topic " + device}, f.reads(line))
	assert.Equal(t, "tele/f2-e4fd45f654bf/it's (x, ')", parse(line).text)
	assert.Empty(t, f.reads("1795617624: Received PUBLISH from e4-fd-45-f6-54-be (d0, q1, r0, m1, 'x', ... (95 bytes))"), "the control")
	f.now = f.now.Add(time.Hour)
	assert.Contains(t, f.over(), "foreign_topic "+device)
}

// Whoever floods the broker does not fill our memory.
func TestTrackingIsBounded(t *testing.T) {
	t.Parallel()
	f := newFollower()
	for i := range 3 * maxTracked {
		f.reads(fmt.Sprintf("New connection from 192.0.2.1:%d on port 28883.", i), "Client <unknown> disconnected, not authorised.",
			"OpenSSL Error[0]: x:"+strings.Repeat("x", 1000), "Client <unknown> disconnected: Protocol error.")
	}
	assert.LessOrEqual(t, len(f.waiting), maxTracked)
	assert.LessOrEqual(t, len(f.failures), maxTracked)
	assert.LessOrEqual(t, len(f.reasons), 10)
	for range 10 * maxArrivals {
		f.reads(takeover("192.0.2.1:1")...)
	}
	assert.LessOrEqual(t, len(f.takeovers[device]), maxArrivals+1)
}

func FuzzLine(f *testing.F) {
	for _, line := range append(takeover("192.0.2.1:1000"), "Client <unknown> disconnected, not authorised.", "1: Denied PUBLISH from a (')", "New client connected from  as  (") {
		f.Add(line)
	}
	follow := newFollower()
	f.Fuzz(func(t *testing.T, line string) {
		o := parse(line)
		if o.client != "" {
			assert.Len(t, string(o.client), 12)
		}
		follow.observe(&o, follow.now)
	})
}

func TestAlarmsAreToldOnce(t *testing.T) {
	t.Parallel()
	var sent []alarm.Alarm
	away := true
	a := newAlarms(func(one alarm.Alarm) error {
		if away {
			return errors.New("NATS is away")
		}
		sent = append(sent, one)
		return nil
	}, newMetrics(prometheus.NewRegistry()).alarms, slog.New(slog.DiscardHandler))
	a.Raise(Clone, device, "first")
	a.Raise(Clone, device, "second")
	a.Clear(Clone, device)
	a.Clear(Clone, device)
	a.Resend()
	assert.Empty(t, sent)
	away = false
	a.Resend()
	a.Resend()
	require.Len(t, sent, 2, "what NATS did not take is told later, once")
	assert.Equal(t, alarm.Alarm{Kind: Clone, Service: "registrar", Subject: device, Since: sent[0].Since, Raised: true, Detail: "first"}, sent[0])
	assert.False(t, sent[1].Raised)
	assert.Equal(t, sent[0].Since, sent[1].Since)

	a.Keep(Silent, map[string]string{"a": "", "b": ""})
	a.Keep(Silent, map[string]string{"b": "", "c": ""})
	assert.ElementsMatch(t, []string{"b", "c"}, a.Subjects(Silent))
	assert.Len(t, sent, 2+2+2)

	away = true
	a.Raise(Clone, device, "third")
	away = false
	a.Clear(Clone, device)
	a.Resend()
	require.Len(t, sent, 6+2)
	assert.True(t, sent[6].Raised)
	assert.False(t, sent[7].Raised, "its end is heard last, or it would stand for ever")
}

// takeover21 is what Mosquitto 2.1 writes when a second connection comes.
func takeover21(address string) []string {
	return []string{
		"1795617623: New connection from " + address + " on port 28883.",
		"1795617623: Client e4-fd-45-f6-54-be [192.0.2.9:1] disconnected: session taken over.",
		"1795617623: New client connected from " + address + " as e4-fd-45-f6-54-be (p4, c1, k60, u'e4-fd-45-f6-54-be').",
	}
}

func TestPresence(t *testing.T) {
	t.Parallel()
	in := []string{
		"New connection from 192.0.2.1:1000 on port 8883.",
		"New client connected from 192.0.2.1:1000 as e4-fd-45-f6-54-be (p2, c1, k60, u'e4-fd-45-f6-54-be').",
	}
	for _, out := range []string{
		"Client e4-fd-45-f6-54-be disconnected.",
		"Client e4-fd-45-f6-54-be closed its connection.",
		"Client e4-fd-45-f6-54-be has exceeded timeout, disconnecting.",
		"Client e4-fd-45-f6-54-be disconnected due to protocol error.",
		"Client e4-fd-45-f6-54-be been disconnected by administrative action.",
		"Bad socket read/write on client e4-fd-45-f6-54-be: The connection was lost.",
		"Client e4-fd-45-f6-54-be [192.0.2.1:1000] disconnected.",
		"Client e4-fd-45-f6-54-be [192.0.2.1:1000] disconnected: connection closed by client.",
		"Client e4-fd-45-f6-54-be [192.0.2.1:1000] disconnected: exceeded timeout.",
	} {
		f := newFollower()
		f.reads(in...)
		assert.Equal(t, f.now, f.present[device], out)
		f.reads(takeover("192.0.2.2:1000")...)
		f.reads(takeover21("192.0.2.3:1000")...)
		assert.Contains(t, f.present, topic.MAC(device), out)
		f.reads(
			"New connection from 192.0.2.4:1000 on port 1883.",
			"Client e4-fd-45-f6-54-be [192.0.2.4:1000] disconnected: not authorised.", // a claim
			"Client e4-fd-45-f6-54-bf disconnected.",
		)
		assert.Contains(t, f.present, topic.MAC(device), out)
		f.reads(out)
		assert.Empty(t, f.present, out)
	}
	f := newFollower()
	f.reads(in...)
	f.reads("New client connected from 127.0.0.1:1 as e4-fd-45-f6-54-be (p2, c1, k10, u'registrar').")
	assert.Empty(t, f.present, "the registrar ended its session")
}

// TestMosquitto21 has the lines of 2.1 that differ from 2.0's.
func TestMosquitto21(t *testing.T) {
	t.Parallel()
	f := newFollower()
	for n := range 2 {
		assert.Empty(t, f.reads(takeover21(fmt.Sprintf("192.0.2.2:%d", n))...))
	}
	assert.Equal(t, []string{"clone " + device}, f.reads(takeover21("192.0.2.1:1001")...))

	var raised []string
	for n := range testConfig().FailedLogins / 2 {
		raised = append(raised, f.reads(
			fmt.Sprintf("New connection from 192.0.2.7:%d on port 1883.", n),
			fmt.Sprintf("Client x [192.0.2.7:%d] disconnected: not authorised.", n),
			fmt.Sprintf("New connection from 192.0.2.8:%d on port 8883.", n),
			"OpenSSL Error while trying to get the error[0]: error:0A0000C7:SSL routines::peer did not return a certificate",
			fmt.Sprintf("Client 192.0.2.8 [192.0.2.8:%d] disconnected: Protocol error.", n),
		)...)
	}
	assert.Equal(t, []string{"failed_logins broker"}, raised)
	assert.Equal(t, map[string]int{"password": 2, "tls: peer did not return a certificate": 2}, f.reasons)
}
