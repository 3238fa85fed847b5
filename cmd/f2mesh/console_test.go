package main

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/services/alarm"
	"github.com/f2mesh/f2mesh/services/console"
)

// browser is a client with cookies that follows no redirect.
type browser struct {
	*http.Client
	m *testMesh
}

func (m *testMesh) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: m.roots(t), MinVersion: tls.VersionTLS12}}
	return &browser{&http.Client{Jar: jar, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, m}
}

func (b *browser) address(path string) string {
	return "https://" + b.m.Address(b.m.Ports().HTTP) + path
}

// ask returns the status, the headers and at most the first 64 KiB of an answer.
func (b *browser) ask(t *testing.T, method, path string, form url.Values) (code int, got http.Header, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, b.address(path), strings.NewReader(form.Encode()))
	require.NoError(t, err)
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	answer, err := b.Do(request)
	require.NoError(t, err)
	defer func() { _ = answer.Body.Close() }()
	if strings.HasPrefix(answer.Header.Get("Content-Type"), "text/event-stream") {
		return answer.StatusCode, answer.Header, ""
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	require.NoError(t, err)
	return answer.StatusCode, answer.Header, string(text)
}

func (b *browser) signIn(t *testing.T, name, password string) (code int) {
	t.Helper()
	code, _, _ = b.ask(t, http.MethodPost, "/sign-in", url.Values{"name": {name}, "password": {password}, "next": {"/fleet"}})
	return code
}

// others is a controller of the demo fleet that the operator of the access file may not see.
const accessFile = `
people:
  - {name: vera, role: viewer, may: [{controllers: ["*"]}]}
  - {name: otto, role: operator, may: [{controllers: ["%s"]}]}
  - {name: ada, role: admin, may: [{controllers: ["*"]}]}
`

// people writes an access file, and gives everybody in it a password.
func (m *testMesh) people(t *testing.T) {
	t.Helper()
	require.NoError(t, os.WriteFile(m.State.Path(access.FileName), fmt.Appendf(nil, accessFile, mac), 0o600))
	for _, name := range []string{"vera", "otto", "ada"} {
		require.NoError(t, os.WriteFile(m.State.Path("secrets", "person_"+name+"_password"), []byte("password of "+name), 0o600))
	}
}

// letterOf has the decoder refuse a message of a controller, and returns the letter's number.
func (m *testMesh) letterOf(t *testing.T) (number uint64) {
	t.Helper()
	device := m.device(t, mac)
	defer device.Disconnect(100)
	publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), `{"timestamp":"2026-11-24 10:00:00","data":"01 03 0C 09"}`)
	eventually(t, func() bool {
		s, err := m.js.Stream(t.Context(), "DEAD_LETTER")
		require.NoError(t, err)
		number = s.CachedInfo().State.LastSeq
		return number > 0
	}, "no dead letter")
	return number
}

// alarmOf stores a raised alarm of a door of a controller, and returns its id.
func (m *testMesh) alarmOf(t *testing.T, mac string) string {
	t.Helper()
	now := time.Now().UTC()
	e := alert.Entry{
		Status: alert.Raised, Time: now, RaisedAt: now, Since: now, Severity: alert.Critical, Summary: "A door has been open for five minutes",
		Identity: alert.Identity{Rule: "door-held-open", MAC: mac, Mode: "access-control-mode", Connector: 3, Component: "door-sensors"},
	}
	_, err := alarm.Publish(t.Context(), m.js, &e, 0)
	require.NoError(t, err)
	return e.ID()
}

// answers has the strike of a controller report that it is on, after each command.
func answers(t *testing.T, device mqtt.Client) {
	t.Helper()
	place := string(mac) + "/access-control-mode/J2/strike-1"
	require.NoError(t, wait(device.Subscribe("cmnd/f2-"+place, 1, func(mqtt.Client, mqtt.Message) {
		device.Publish("stat/f2-"+place, 1, false, `{"status":true}`)
	})))
	publish(t, device, "tele/f2-"+place, `{"status":false}`)
}

// TestConsoleActs acknowledges and shelves an alarm, and commands a strike.
func TestConsoleActs(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 100 * time.Millisecond })
	m.people(t)
	path := "/alarms/" + m.alarmOf(t, string(mac))
	otto, vera := m.signedIn(t, "otto"), m.signedIn(t, "vera")
	act := func(b *browser, form url.Values) (int, string) {
		code, _, body := b.ask(t, http.MethodPost, path, form)
		return code, body
	}
	code, _ := act(vera, url.Values{"action": {"acknowledge"}})
	assert.Equal(t, http.StatusForbidden, code, "a viewer")
	_, _, body := vera.ask(t, http.MethodGet, path, nil)
	assert.NotContains(t, body, "Acknowledge</button>")
	_, _, body = otto.ask(t, http.MethodGet, path, nil)
	assert.Contains(t, body, "Acknowledge</button>", "the control")
	assert.Contains(t, body, "nobody")
	eventually(t, func() bool { // the alarm service has started
		code, body = act(otto, url.Values{"action": {"acknowledge"}, "comment": {"on my way"}})
		return code == http.StatusSeeOther
	}, "not acknowledged: %d %s", &code, &body)
	_, _, body = vera.ask(t, http.MethodGet, path, nil)
	assert.Regexp(t, `otto, <time[^>]*>[^<]*</time>: on my way`, body)
	code, body = act(otto, url.Values{"action": {"acknowledge"}})
	assert.Equal(t, http.StatusConflict, code)
	assert.Contains(t, body, "acknowledged already: by otto")
	code, body = act(otto, url.Values{"action": {"shelve"}, "hours": {"7"}})
	assert.Equal(t, http.StatusConflict, code, "7 hours are not offered: %s", body)
	code, _ = act(otto, url.Values{"action": {"shelve"}, "hours": {"8"}, "comment": {"the contractor knows"}})
	require.Equal(t, http.StatusSeeOther, code)
	_, _, body = vera.ask(t, http.MethodGet, "/alarms?state=shelved", nil)
	assert.Contains(t, body, path)
	code, _ = act(otto, url.Values{"action": {"unshelve"}})
	require.Equal(t, http.StatusSeeOther, code)
	_, _, body = vera.ask(t, http.MethodGet, "/alarms?state=shelved", nil)
	assert.NotContains(t, body, path)

	command := func(b *browser, change url.Values) (int, string) {
		form := url.Values{"place": {"access-control-mode.2.strike-1"}, "power": {"on"}, "period": {"5"}, "sure": {"1"}, "id": {"console-" + rand.Text()}}
		maps.Copy(form, change)
		code, _, body := b.ask(t, http.MethodPost, "/fleet/"+string(mac)+"/command", form)
		return code, body
	}
	code, _ = command(vera, nil)
	assert.Equal(t, http.StatusForbidden, code, "a viewer")
	for why, change := range map[string]url.Values{
		"not confirmed": {"sure": {""}}, "not a form's id": {"id": {"x"}}, "no power": {"power": {""}}, "a wrong period": {"period": {"256"}},
		"not a component": {"place": {"strike-1"}}, "wildcards": {"place": {"access-control-mode.*.strike-1"}}, "a sensor": {"place": {"sensor-mode.1.sensor-1"}},
	} {
		code, _ := command(otto, change)
		assert.Equal(t, http.StatusBadRequest, code, why)
	}
	answers(t, m.device(t, mac))
	code, body = command(otto, nil)
	require.Equal(t, http.StatusOK, code, body)
	_, outcome, _ := strings.Cut(body, "Outcome:")
	assert.Contains(t, outcome, "confirmed")
}

// TestConsoleCommandIDs: a form that is sent twice is one command; with another choice it is another.
func TestConsoleCommandIDs(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	device, place := m.device(t, mac), string(mac)+"/access-control-mode/J2/strike-1"
	got := make(chan string, 10)
	require.NoError(t, wait(device.Subscribe("cmnd/f2-"+place, 1, func(_ mqtt.Client, order mqtt.Message) {
		got <- string(order.Payload())
		device.Publish("stat/f2-"+place, 1, false, fmt.Sprintf(`{"status":%t}`, strings.Contains(string(order.Payload()), `"power-flag":1`)))
	})))
	admin := m.signedIn(t, "admin")
	form := url.Values{"place": {"access-control-mode.2.strike-1"}, "sure": {"1"}, "id": {"console-" + rand.Text()}}
	const again = "It was not sent again"
	for _, one := range []struct{ power, period, arrives string }{
		{"on", "5", `{"power-flag":1,"period":5}`}, {"on", "5", ""}, {"off", "", `{"power-flag":0}`}, {"on", "60", `{"power-flag":1,"period":60}`},
	} {
		form.Set("power", one.power)
		form.Set("period", one.period)
		code, _, body := admin.ask(t, http.MethodPost, "/fleet/"+string(mac)+"/command", form)
		require.Equal(t, http.StatusOK, code, body)
		assert.Regexp(t, `<strong class="good">(confirmed|delivered)</strong>`, body)
		if one.arrives == "" {
			assert.Contains(t, body, again)
			assert.Empty(t, got, "sent twice")
			continue
		}
		assert.NotContains(t, body, again)
		require.NotEmpty(t, got, "%s %s has the outcome of another command", one.power, one.period)
		assert.Equal(t, one.arrives, <-got)
	}
}

// TestConsoleRoutes asks for every address as everybody.
func TestConsoleRoutes(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 100 * time.Millisecond })
	m.people(t)
	letter := m.letterOf(t)
	other := m.otherThan(t, string(mac))
	own, others := m.alarmOf(t, string(mac)), m.alarmOf(t, other)
	const refused, gone, bad = http.StatusForbidden, http.StatusSeeOther, http.StatusBadRequest
	ok := http.StatusOK
	// The status that each route has for vera (viewer), otto (operator of one controller), ada
	// (admin) and admin.
	want := map[string]map[string][4]int{
		"GET /{$}":              {"/": {ok, ok, ok, ok}},
		"GET /live":             {"/live": {ok, ok, ok, ok}},
		"GET /fleet":            {"/fleet": {ok, ok, ok, ok}},
		"GET /fleet/{mac}":      {"/fleet/" + string(mac): {ok, ok, ok, ok}, "/fleet/" + other: {ok, refused, ok, ok}},
		"GET /fleet/{mac}/live": {"/fleet/" + string(mac) + "/live": {ok, ok, ok, ok}, "/fleet/" + other + "/live": {ok, refused, ok, ok}},
		"GET /fleet/{mac}/series": {
			"/fleet/" + string(mac) + "/series": {http.StatusBadRequest, http.StatusBadRequest, http.StatusBadRequest, http.StatusBadRequest},
			"/fleet/" + other + "/series":       {http.StatusBadRequest, refused, http.StatusBadRequest, http.StatusBadRequest},
		},
		"POST /fleet/{mac}/command": {
			"/fleet/" + string(mac) + "/command": {refused, bad, bad, bad},
			"/fleet/" + other + "/command":       {refused, refused, bad, bad},
		},
		"GET /alarms":         {"/alarms": {ok, ok, ok, ok}},
		"GET /alarms/{alarm}": {"/alarms/" + own: {ok, ok, ok, ok}, "/alarms/" + others: {ok, refused, ok, ok}},
		"POST /alarms/{alarm}": {
			"/alarms/" + own:    {refused, http.StatusConflict, http.StatusConflict, http.StatusConflict},
			"/alarms/" + others: {refused, refused, http.StatusConflict, http.StatusConflict},
		},
		"GET /dead":           {"/dead": {ok, ok, ok, ok}},
		"GET /dead/{letter}":  {fmt.Sprintf("/dead/%d", letter): {ok, ok, ok, ok}},
		"POST /dead/{letter}": {fmt.Sprintf("/dead/%d", letter): {refused, ok, ok, ok}},
		"GET /ledger":         {"/ledger": {ok, ok, ok, ok}},
		"GET /audit":          {"/audit": {refused, refused, ok, ok}},
		"GET /secrets":        {"/secrets": {refused, refused, ok, ok}},
		"POST /sign-out":      {"/sign-out": {gone, gone, gone, gone}},
	}
	// Without a confirmation: a command that is sent would take its time.
	forms := map[string]url.Values{"POST /fleet/{mac}/command": {"place": {"access-control-mode.2.strike-1"}, "power": {"on"}, "id": {"console-matrix"}}}
	patterns := console.Patterns()
	require.Len(t, want, len(patterns))
	everybody := []string{"vera", "otto", "ada", "admin"}
	signed := map[string]*browser{}
	for _, name := range everybody {
		signed[name] = m.signedIn(t, name)
	}
	for _, pattern := range patterns {
		require.Contains(t, want, pattern, "a route that this test does not know")
		method, _, _ := strings.Cut(pattern, " ")
		for path, codes := range want[pattern] {
			stranger := m.browser(t)
			code, header, body := stranger.ask(t, method, path, nil)
			assert.Equal(t, http.StatusUnauthorized, code, "%s %s, not signed in", method, path)
			assert.Contains(t, body, `name="password"`)
			assert.Contains(t, header.Get("Content-Security-Policy"), "default-src 'self'")
			assert.NotContains(t, header.Get("Content-Security-Policy"), "unsafe")
			for i, name := range everybody {
				b := signed[name]
				if pattern == "POST /sign-out" { // which ends the session
					b = m.signedIn(t, name)
				}
				code, _, body := b.ask(t, method, path, forms[pattern])
				assert.Equal(t, codes[i], code, "%s %s as %s: %s", method, path, name, body)
			}
		}
	}
	t.Run("the fleet has what one may see", func(t *testing.T) {
		for name, sees := range map[string]bool{"vera": true, "otto": false} {
			_, _, body := signed[name].ask(t, http.MethodGet, "/fleet", nil)
			assert.Contains(t, body, "/fleet/"+string(mac))
			assert.Equal(t, sees, strings.Contains(body, "/fleet/"+other), name)
		}
	})
	t.Run("who is taken out of the file is signed out", func(t *testing.T) {
		b := signed["vera"]
		require.NoError(t, os.WriteFile(m.State.Path(access.FileName), []byte("people:\n  - {name: ada, role: admin, may: [{controllers: ['*']}]}\n"), 0o600))
		code, _, _ := b.ask(t, http.MethodGet, "/", nil)
		assert.Equal(t, http.StatusUnauthorized, code)
	})
}

func (m *testMesh) passwordOf(t *testing.T, name string) string {
	t.Helper()
	if name == "admin" {
		return m.password(t, credential.HealthAPI)
	}
	return "password of " + name
}

// signedIn is a browser in which a person has signed in.
func (m *testMesh) signedIn(t *testing.T, name string) *browser {
	t.Helper()
	b := m.browser(t)
	// An address may try so many times, and then now and then.
	eventually(t, func() bool { return b.signIn(t, name, m.passwordOf(t, name)) == http.StatusSeeOther }, "%s cannot sign in", name)
	return b
}

// otherThan is a controller of the demo fleet.
func (m *testMesh) otherThan(t *testing.T, mac string) (other string) {
	t.Helper()
	require.NoError(t, m.rows.QueryRow(t.Context(), "SELECT 1").Scan(new(int)))
	conn, err := m.Superuser(t.Context(), "registry")
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT mac FROM public.device WHERE mac <> $1 LIMIT 1", mac).Scan(&other))
	return other
}

// TestConsoleGuessing tries wrong passwords.
func TestConsoleGuessing(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 100 * time.Millisecond })
	b, codes := m.browser(t), map[int]int{}
	for range 13 {
		codes[b.signIn(t, "admin", "wrong")]++
	}
	assert.GreaterOrEqual(t, codes[http.StatusUnauthorized], 10)
	assert.NotZero(t, codes[http.StatusTooManyRequests], "%v", codes)
	assert.Equal(t, http.StatusTooManyRequests, b.signIn(t, "admin", m.passwordOf(t, "admin")), "the right password is not tried either")
	eventually(t, func() bool {
		_, body := m.api(t, "/status", m.passwordOf(t, "admin"))
		return strings.Contains(body, `"alarm": "failed_logins"`)
	}, "no alarm")
	eventually(t, func() bool { return b.signIn(t, "admin", m.passwordOf(t, "admin")) == http.StatusSeeOther }, "the control: later it is")
}

// TestConsoleEscapes has markup wherever somebody else's text is shown.
func TestConsoleEscapes(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = 100 * time.Millisecond })
	const markup = "<script>alert(1)</script>"
	m.sql(t, "metadata", `UPDATE fleet."Device" SET "DeviceName" = '`+markup+`' WHERE "MacAddress" IS NOT NULL`)
	device := m.device(t, mac)
	publish(t, device, fmt.Sprintf("tele/f2-%s/access-control-mode/J2/strike-1", mac), `{"status":true}`)
	publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), `{"data":"`+markup+`"}`)
	eventually(t, func() bool {
		return m.count(t, "SELECT count(*) FROM device_event") > 0 && len(m.deadLetters(t, "f2.dead.>")) > 0
	}, "nothing came")
	b := m.signedIn(t, "admin")
	for _, path := range []string{"/", "/fleet", "/fleet?q=" + url.QueryEscape(markup), "/fleet/" + string(mac), "/dead?q=" + url.QueryEscape(markup), "/dead/1", "/audit", "/sign-in"} {
		code, _, body := b.ask(t, http.MethodGet, path, nil)
		assert.Equal(t, http.StatusOK, code, path)
		assert.NotContains(t, body, markup, path)
		if strings.HasPrefix(path, "/fleet") {
			assert.Contains(t, body, "&lt;script&gt;", "the control: it is shown on %s", path)
		}
	}
	_, header, body := b.ask(t, http.MethodGet, "/fleet?format=csv", nil)
	assert.Contains(t, header.Get("Content-Type"), "text/csv")
	assert.Contains(t, body, markup)
}
