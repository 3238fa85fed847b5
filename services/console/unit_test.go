package console

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC)
	s := newSessions(time.Hour, 3*time.Hour)
	ask := func(token string, after time.Duration) *session {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.AddCookie(cookie(token))
		return s.find(r, began.Add(after))
	}
	token := s.open(person{Name: "ada"}, began)
	assert.Nil(t, ask("another", 0))
	assert.Nil(t, ask("", 0))
	first := ask(token, 0)
	require.NotNil(t, first)
	for _, after := range []time.Duration{50 * time.Minute, 100 * time.Minute, 150 * time.Minute, 3 * time.Hour} {
		assert.NotNil(t, ask(token, after), "it is in use, %s", after)
	}
	assert.Nil(t, ask(token, 3*time.Hour+time.Second), "its time is over")
	<-first.ended // a live page ends

	token = s.open(person{Name: "ada"}, began)
	assert.Nil(t, ask(token, 61*time.Minute), "it was not used")

	mine, other, bobs := s.open(person{Name: "ada"}, began), s.open(person{Name: "ada"}, began), s.open(person{Name: "bob"}, began)
	s.leave(ask(mine, 0), false)
	assert.Nil(t, ask(mine, 0))
	assert.NotNil(t, ask(other, 0), "signing out ends one session")
	s.leave(ask(s.open(person{Name: "ada"}, began), 0), true)
	assert.Nil(t, ask(other, 0), "signing out everywhere ends all of a person")
	assert.NotNil(t, ask(bobs, 0))
	s.forget(began.Add(2 * time.Hour))
	assert.Empty(t, s.byToken)
}

func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	s := newSessions(time.Hour, time.Hour)
	for n := range maxSessions + 10 {
		s.open(person{}, time.Unix(int64(n), 0))
	}
	assert.Len(t, s.byToken, maxSessions)
}

func TestCookieIsStrict(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "__Host-f2mesh=x; Path=/; HttpOnly; Secure; SameSite=Strict", cookie("x").String())
}

func TestNextPageIsLocal(t *testing.T) {
	t.Parallel()
	for next, want := range map[string]string{
		"/fleet?q=a": "/fleet?q=a", "": "/", "//evil.example": "/", "https://evil.example": "/", `/\evil.example`: "/",
		"/\t/evil.example": "/", "/sign-in": "/", "javascript:alert(1)": "/",
	} {
		assert.Equal(t, want, local(next), next)
	}
}

func TestCellsAreNoFormulas(t *testing.T) {
	t.Parallel()
	for cell, want := range map[string]string{
		"": "", "a": "a", "-5.5": "-5.5", "+1": "+1", "=1+1": "'=1+1", "@SUM(A1)": "'@SUM(A1)", "-cmd|' /C calc'!A0": "'-cmd|' /C calc'!A0",
		"\t=1": "'\t=1", "+Inf": "+Inf",
	} {
		assert.Equal(t, want, harmless(cell))
	}
}

// TestWatchersAreBounded tells a browser that takes nothing of many events.
func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	l := newLive()
	const mac topic.MAC = "e4fd45f654be"
	w, stop := l.watch(mac)
	for n := range 10_000 {
		l.tell(mac, fmt.Sprintf("component-%d", n%(2*maxPending)), update{data: fmt.Append(nil, n)})
		l.tell("e4fd45f654bf", "other", update{})
	}
	names, updates := w.take()
	assert.Len(t, updates, maxPending)
	assert.Equal(t, "component-0", names[0])
	assert.Equal(t, "9728", string(updates["component-0"].data), "the last of each component")
	names, _ = w.take()
	assert.Empty(t, names)
	w.add("component-1", update{data: []byte("new")}, true)
	w.add("component-1", update{data: []byte("old")}, false)
	_, updates = w.take()
	assert.Equal(t, "new", string(updates["component-1"].data), "what LATEST has is not newer")
	stop()
	assert.Zero(t, l.watched(mac))

	for range maxWatchers {
		_, _ = l.watch(mac)
	}
	none, _ := l.watch(mac)
	assert.Nil(t, none)
}

// TestEventsAreOneEach has no text end an event, or begin another.
func TestEventsAreOneEach(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String().Draw(t, "text")
		var b bytes.Buffer
		writeEvent(&b, "name", []byte(text))
		written := strings.TrimSuffix(b.String(), "\n\n")
		lines := strings.Split(written, "\n")
		assert.Equal(t, "event: name", lines[0])
		for _, line := range lines[1:] {
			assert.True(t, strings.HasPrefix(line, "data: "), "%q", line)
			assert.NotContains(t, line, "\r")
		}
	})
}

// TestFleetOfTenThousand is fast enough to be asked for with each letter of a search.
func TestFleetOfTenThousand(t *testing.T) {
	t.Parallel()
	now := time.Now()
	all := make([]device, 10_000)
	for n := range all {
		all[n] = device{MAC: topic.MAC(fmt.Sprintf("02f2%08x", n)), Name: fmt.Sprintf("Door %d", n), Status: "active", Seen: now, Expires: now.Add(time.Duration(n) * time.Hour)}
	}
	all[17].Seen = now.Add(-time.Hour)
	all[18].Seen = time.Time{}
	all[19].Status = "revoked"
	all[20].Status = ""
	choose := func(query, state string) []device {
		p := &fleetPage{Query: query, State: choices{Chosen: state}, At: now}
		return p.choose(append([]device(nil), all...))
	}
	assert.Len(t, choose("", ""), 10_000)
	assert.Len(t, choose("02:F2:00:00:00:11", ""), 1)
	assert.Len(t, choose("door 1234", ""), 1)
	for state, mac := range map[string]topic.MAC{stateSilent: "02f200000011", stateNever: "02f200000012", stateRevoked: "02f200000013", stateUnknown: "02f200000014"} {
		found := choose("", state)
		require.Len(t, found, 1, state)
		assert.Equal(t, mac, found[0].MAC, state)
	}
	assert.Len(t, choose("", stateReporting), 9_996)
	assert.Len(t, choose("", stateExpiring), 30*24-2, "but for what is not active")
}

func TestPages(t *testing.T) {
	t.Parallel()
	rows := make([]int, 101)
	for i := range rows {
		rows[i] = i
	}
	for asked, want := range map[string][2]int{"": {1, 0}, "2": {2, 50}, "99": {3, 100}, "-1": {1, 0}, "x": {1, 0}} {
		r := &http.Request{URL: &url.URL{Path: "/fleet", RawQuery: url.Values{"page": {asked}, "q": {"a b"}}.Encode()}}
		shown, p := paged(r, rows)
		assert.Equal(t, want, [2]int{p.Page, shown[0]}, asked)
		assert.Equal(t, 3, p.Pages)
	}
	r := &http.Request{URL: &url.URL{Path: "/fleet", RawQuery: "q=a+b&page=2"}}
	previous, next := around(r, 2, 3)
	assert.Equal(t, "/fleet?page=1&q=a+b", previous)
	assert.Equal(t, "/fleet?page=3&q=a+b", next)
}

// TestOthersPagesChangeNothing has another site's page send a form.
func TestOthersPagesChangeNothing(t *testing.T) {
	t.Parallel()
	c, err := New(Config{Schema: "fleet", Idle: time.Hour, Lifetime: time.Hour}, Sources{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for site, want := range map[string]int{"cross-site": http.StatusForbidden, "same-site": http.StatusForbidden, "same-origin": http.StatusSeeOther} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sign-out", nil)
		r.AddCookie(cookie(c.sessions.open(person{Name: administrator}, time.Now())))
		r.Header.Set("Sec-Fetch-Site", site)
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		assert.Equal(t, want, w.Code, site)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]any{"0": 0, "1\u202f234\u202f567": uint64(1234567), "0.3": 0.34, "999": 999, "12": 12.4} {
		assert.Equal(t, want, number(v))
	}
}
