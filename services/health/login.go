package health

import (
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// Wrong passwords that are alarming, until there is none for the window.
const (
	alarmingLogins = 10
	loginWindow    = time.Minute
)

// logins watches for wrong passwords. It is safe for concurrent use.
type logins struct {
	alarms *alarm.Board
	metric prometheus.Counter

	mu      sync.Mutex // guards the fields below
	all     uint64
	since   time.Time // when the window began
	last    time.Time
	failing int // within the window
	sources web.Tally
}

func newLogins(alarms *alarm.Board, metric prometheus.Counter) *logins {
	return &logins{alarms: alarms, metric: metric, sources: web.Tally{}}
}

// failed notes a wrong password from an address.
func (l *logins) failed(address string, now time.Time) {
	l.metric.Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) > loginWindow {
		l.since, l.failing = now, 0
		clear(l.sources)
	}
	l.all++
	l.failing++
	l.last = now
	l.sources.Add(address)
	if l.failing >= alarmingLogins {
		l.alarms.Raise(FailedLogins, "health API", fmt.Sprintf("%d wrong passwords within %s, from %s", l.failing, loginWindow, l.sources))
	}
}

// forget clears the alarm once the window had no wrong password.
func (l *logins) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.last) > loginWindow {
		l.alarms.Clear(FailedLogins, "health API")
	}
}

func (l *logins) count() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}
