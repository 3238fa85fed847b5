package alarm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	board "github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// hook is a receiver's web server.
type hook struct {
	*httptest.Server
	mu     sync.Mutex
	code   int
	bodies []map[string]any
	times  []time.Time
}

func newHook(tb testing.TB) *hook {
	tb.Helper()
	h := &hook{code: http.StatusOK}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		w.WriteHeader(h.code)
		var body map[string]any
		if h.code == http.StatusOK && json.Unmarshal(data, &body) == nil {
			h.bodies, h.times = append(h.bodies, body), append(h.times, time.Now())
		}
	}))
	tb.Cleanup(h.Close)
	return h
}

func (h *hook) returns(code int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.code = code
}

func (h *hook) received() []map[string]any {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.bodies)
}

// A receiver that is down gets what happened meanwhile, in its order, and holds up no other. A
// service that stops forgets nothing.
func TestNotifications(t *testing.T) {
	t.Parallel()
	down, up := newHook(t), newHook(t)
	down.returns(http.StatusServiceUnavailable)
	r := newRig(t, heldOpen+fmt.Sprintf("receivers:\n- {name: down, webhook: {url: %q}}\n- {name: up, severity: critical, cloudevents: {url: %q}}\n- {name: none, severity: info, webhook: {url: %q}}\n", down.URL, up.URL, up.URL))
	_, stop := r.start()
	now := time.Now().UTC()
	r.publish(r.state(door, now, true), r.state(door, now.Add(time.Second), false))
	require.Eventually(t, func() bool { return len(up.received()) == 2 }, patience, 20*time.Millisecond)
	raised := up.received()[0]
	assert.Equal(t, "f2mesh.alarm.raised", raised["type"])
	assert.Equal(t, "rule.open.e4fd45f654be.access-control-mode.3.door-sensors", raised["subject"])
	assert.Empty(t, down.received())
	stop()
	down.returns(http.StatusOK)
	_, _ = r.start()
	require.Eventually(t, func() bool { return len(down.received()) == 2 }, patience, 20*time.Millisecond)
	both := down.received()
	assert.Equal(t, "firing", both[0]["status"])
	assert.Equal(t, "resolved", both[1]["status"])
	assert.Equal(t, "4", both[0]["version"])
	one := both[1]["alerts"].([]any)[0].(map[string]any)
	assert.Equal(t, "open", one["labels"].(map[string]any)["alertname"])
	assert.Equal(t, now.Format(time.RFC3339Nano), one["startsAt"])
	assert.NotEqual(t, "0001-01-01T00:00:00Z", one["endsAt"])

	// What up has accepted comes again after the stop, with the same id.
	ids := map[any]bool{}
	for _, e := range up.received() {
		ids[e["id"]] = true
	}
	assert.Len(t, ids, 2)

	ask := func(name string) string {
		m, err := r.operator.JetStream().Conn().Request(TestSubject, []byte(name), patience)
		require.NoError(t, err)
		return string(m.Data)
	}
	assert.Equal(t, "delivered", ask("down"))
	assert.Contains(t, ask("nobody"), `no receiver "nobody"`)
	down.returns(http.StatusBadRequest)
	assert.Contains(t, ask("down"), "400 Bad Request")
}

func TestWhoIsNotified(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ann := &alert.Acknowledgement{By: "ann", At: now}
	shelf := &alert.Shelf{Until: now.Add(time.Hour)}
	for name, c := range map[string]struct {
		e    alert.Entry
		want bool
	}{
		"pending":                   {alert.Entry{Status: alert.Pending}, false},
		"raised":                    {alert.Entry{Status: alert.Raised, Time: now}, true},
		"acknowledged":              {alert.Entry{Status: alert.Raised, Time: now, Acknowledged: ann}, false},
		"cleared":                   {alert.Entry{Status: alert.Cleared, Time: now.Add(1), Acknowledged: ann}, true},
		"acknowledged when cleared": {alert.Entry{Status: alert.Cleared, Time: now, Acknowledged: ann}, false},
		"shelved":                   {alert.Entry{Status: alert.Raised, Time: now, Shelved: shelf}, false},
	} {
		assert.Equal(t, c.want, (&Receiver{}).wants(&c.e, now), name)
	}
}

// An error names neither the address nor what is secret in it.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	r := &Receiver{Name: "a", Webhook: &webHook{URL: "http://127.0.0.1:1/token-4711"}}
	err := r.notify(t.Context(), nil, &alert.Entry{})
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "4711")
}

func TestWrongReceivers(t *testing.T) {
	t.Parallel()
	for _, test := range [][2]string{
		{"{name: a}", "needs one of"},
		{"{name: a b}", "name must be"},
		{"{name: a, webhook: {url: here}}", "must be an http"},
		{"{name: a, webhook: {}, cloudevents: {}}", "needs one of"},
		{"{name: a, smtp: {server: here, from: a@b, to: [c@d]}}", "host:port"},
		{"{name: a, smtp: {server: 'here:25', from: a@b}}", "list of addresses"},
		{`{name: a, smtp: {server: 'here:25', from: "a@b\nTo: x", to: [c@d]}}`, "not a mail address"},
	} {
		_, err := ParseRules([]byte("receivers:\n- " + test[0]))
		require.ErrorContains(t, err, test[1], test[0])
		require.ErrorContains(t, err, "line 2", test[0])
	}
}

func TestMail(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	lines := make(chan string, 100)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		fmt.Fprint(conn, "220 here\r\n")
		data := false
		for in := bufio.NewScanner(conn); in.Scan(); {
			lines <- in.Text()
			switch text := in.Text(); {
			case data && text == ".", !data && text != "DATA":
				data = false
				fmt.Fprint(conn, "250 ok\r\n")
			case text == "DATA":
				data = true
				fmt.Fprint(conn, "354 go\r\n")
			}
		}
		close(lines)
	}()
	r := &Receiver{Name: "a", Mail: &mailBox{Server: listener.Addr().String(), From: "a@b", To: []string{"c@d"}}}
	require.NoError(t, r.check())
	require.NoError(t, r.notify(t.Context(), nil, &alert.Entry{Status: alert.Raised, Severity: alert.Warning, Summary: "Tür offen", Identity: alert.Identity{Rule: "open"}, Occurrence: "17"}))
	var all []string
	for line := range lines {
		all = append(all, line)
	}
	text := strings.Join(all, "\n")
	assert.Contains(t, text, "RCPT TO:<c@d>")
	assert.Contains(t, text, "Message-ID: <17-raised@f2mesh>")
	assert.Contains(t, text, "T=C3=BCr offen")
}

// Services' own alarms are in ALARM, too, whether the message came or only the list has it.
func TestServicesAlarms(t *testing.T) {
	t.Parallel()
	r := newRig(t, "rules: []")
	keeper := streamtest.Connect(t, r.server, natsserver.Keeper).JetStream().Conn()
	one := board.Alarm{Kind: "stream_filling", Service: "keeper", Subject: "RAW", Since: time.Now().UTC(), Raised: true, Detail: "soon"}
	var mu sync.Mutex
	raised := []board.Alarm{one}
	_, err := keeper.Subscribe(board.ListSubject("keeper"), func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		data, _ := json.Marshal(board.Listing{Total: len(raised), Alarms: raised})
		_ = m.Respond(data)
	})
	require.NoError(t, err)
	require.NoError(t, keeper.Flush())
	_, stop := r.start()
	r.become(alert.Raised)
	assert.Equal(t, "service.keeper.stream_filling.RAW", (&r.entries()[0].Identity).ID())
	require.NoError(t, board.Publish(keeper, one)) // it comes again
	one.Raised = false
	require.NoError(t, board.Publish(keeper, one))
	r.become(alert.Raised, alert.Cleared)

	one.Raised, one.Since = true, time.Now().UTC()
	require.NoError(t, board.Publish(keeper, one))
	r.become(alert.Raised, alert.Cleared, alert.Raised)
	stop()
	mu.Lock()
	raised = nil // it was cleared while nobody listened
	mu.Unlock()
	r.start()
	r.become(alert.Raised, alert.Cleared, alert.Raised, alert.Cleared)
}
