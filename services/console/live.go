package console

import (
	"bytes"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const (
	// meshTopic is what the page of the mesh watches; others watch a controller's MAC.
	meshTopic topic.MAC = "mesh"
	// maxWatchers is how many live pages there are at once.
	maxWatchers = 240
	// maxPending is how many events of one page wait for it; a controller has at most that
	// many components.
	maxPending = 256
	// eventPause is the least time between two writes to a browser: of what comes meanwhile it
	// gets the last of each component.
	eventPause = 200 * time.Millisecond
	// heartbeat is how often a page that has no news gets a sign of life.
	heartbeat = 15 * time.Second
	// slowest is how long a browser may take nothing before it is cut off. It connects again
	// by itself, and then gets the state of now.
	slowest = 10 * time.Second
)

// update is the content of an event.
type update struct {
	subject string
	data    []byte
}

// live passes what happens to the browsers that show it. Of each event that a browser has
// not taken yet, it has the last: its memory is bounded, however slow the browser is. It is
// safe for concurrent use.
type live struct {
	decoded atomic.Uint64 // messages since the start

	mu       sync.Mutex // guards the fields below
	watchers map[topic.MAC]map[*watcher]struct{}
	count    int
	since    time.Time // of the last rate
	last     uint64
	perSec   float64
}

// watcher is one browser's live page.
type watcher struct {
	news chan struct{} // has an item while something is pending

	mu      sync.Mutex // guards the fields below
	pending map[string]update
	order   []string
}

func newLive() *live {
	return &live{watchers: map[topic.MAC]map[*watcher]struct{}{}, since: time.Now()}
}

// watch begins to collect events of a topic, until stop is called. It returns nil if there
// are too many watchers.
func (l *live) watch(of topic.MAC) (w *watcher, stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count >= maxWatchers {
		return nil, nil
	}
	l.count++
	w = &watcher{news: make(chan struct{}, 1), pending: map[string]update{}}
	if l.watchers[of] == nil {
		l.watchers[of] = map[*watcher]struct{}{}
	}
	l.watchers[of][w] = struct{}{}
	return w, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.count--
		delete(l.watchers[of], w)
		if len(l.watchers[of]) == 0 {
			delete(l.watchers, of)
		}
	}
}

// watched is how many watchers a topic has.
func (l *live) watched(of topic.MAC) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.watchers[of])
}

// tell has the watchers of a topic get an event. It keeps u.
func (l *live) tell(of topic.MAC, event string, u update) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers[of] {
		w.add(event, u, true)
	}
}

// rate is how many messages were decoded a second, as of the last second.
func (l *live) rate(now time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if took := now.Sub(l.since).Seconds(); took >= 0.9 {
		all := l.decoded.Load()
		l.perSec, l.since, l.last = float64(all-l.last)/took, now, all
	}
	return l.perSec
}

// add has the event sent. It takes the place of one that is pending if it is newer.
func (w *watcher) add(event string, u update, newer bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch _, ok := w.pending[event]; {
	case ok && !newer:
		return
	case !ok && len(w.pending) >= maxPending:
		return
	case !ok:
		w.order = append(w.order, event)
	}
	w.pending[event] = u
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// take returns what is pending, in the order of its first news.
func (w *watcher) take() (names []string, updates map[string]update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	names, updates = w.order, w.pending
	w.order, w.pending = nil, map[string]update{}
	return names, updates
}

// follow sends a browser the events of a topic, rendered. first adds what happened before.
func (c *Console) follow(w http.ResponseWriter, r *http.Request, s *session, of topic.MAC, first func(add func(string, update)), render func(event string, u update) ([]byte, error)) {
	watcher, stop := c.live.watch(of)
	if watcher == nil {
		w.Header().Set("Retry-After", "60")
		http.Error(w, "too many live pages are open", http.StatusServiceUnavailable)
		return
	}
	defer stop()
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	send := func(text []byte) bool {
		// A page stays open for longer than an answer may take.
		if control.SetWriteDeadline(time.Now().Add(slowest)) != nil {
			return false
		}
		_, err := w.Write(text)
		return err == nil && control.Flush() == nil
	}
	if !send([]byte("retry: 2000\n\n")) {
		return
	}
	first(func(event string, u update) { watcher.add(event, u, false) })
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.ended:
			return
		case <-beat.C:
			c.fleet.use()
			if !send([]byte(": \n\n")) {
				return
			}
			continue
		case <-watcher.news:
		}
		var b bytes.Buffer
		names, updates := watcher.take()
		for _, name := range names {
			text, err := render(name, updates[name])
			if err != nil {
				c.log.Warn("a live page cannot be rendered", "path", r.URL.Path, "error", err)
				continue
			}
			writeEvent(&b, name, text)
		}
		if !send(b.Bytes()) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(eventPause):
		}
	}
}

// writeEvent writes one server-sent event.
func writeEvent(b *bytes.Buffer, name string, text []byte) {
	fmt.Fprintf(b, "event: %s\n", name)
	for line := range bytes.SplitSeq(bytes.TrimSpace(text), []byte("\n")) {
		b.WriteString("data: ")
		b.Write(bytes.ReplaceAll(line, []byte("\r"), nil))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
}
