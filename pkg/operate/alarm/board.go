package alarm

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Board holds the raised alarms of one service, publishes each change once, and counts the
// alarms in a metric. It is safe for concurrent use.
type Board struct {
	service string
	publish func(Alarm) error
	gauge   *prometheus.GaugeVec
	log     *slog.Logger

	mu     sync.Mutex // guards the fields below
	raised map[[2]string]Alarm
	unsent []Alarm // changes that could not be published, in order
}

// maxUnsent bounds unsent: the oldest changes are dropped. The metrics count all alarms.
const maxUnsent = 10000

// NewBoard returns a board without alarms. publish fails while NATS is unavailable. The gauge has
// the label "alarm", which is the kind, and starts at 0 for each of kinds.
func NewBoard(service string, kinds []string, publish func(Alarm) error, gauge *prometheus.GaugeVec, log *slog.Logger) *Board {
	for _, kind := range kinds {
		gauge.WithLabelValues(kind) // now it is 0, not absent
	}
	return &Board{service: service, publish: publish, gauge: gauge, log: log, raised: map[[2]string]Alarm{}}
}

// Raise raises an alarm, unless it is raised already.
func (b *Board) Raise(kind, subject, detail string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := [2]string{kind, subject}
	if _, ok := b.raised[key]; ok {
		return
	}
	one := Alarm{Kind: kind, Service: b.service, Subject: subject, Since: time.Now().UTC(), Raised: true, Detail: detail}
	b.raised[key] = one
	b.gauge.WithLabelValues(kind).Inc()
	b.log.Warn("alarm raised", "alarm", kind, "subject", subject, "detail", detail)
	b.send(one)
}

// Clear clears an alarm, if it is raised.
func (b *Board) Clear(kind, subject string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := [2]string{kind, subject}
	one, ok := b.raised[key]
	if !ok {
		return
	}
	delete(b.raised, key)
	b.gauge.WithLabelValues(kind).Dec()
	b.log.Info("alarm cleared", "alarm", kind, "subject", subject)
	one.Raised = false
	b.send(one)
}

// Subjects lists the subjects of the raised alarms of a kind.
func (b *Board) Subjects(kind string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []string
	for key := range b.raised {
		if key[0] == kind {
			all = append(all, key[1])
		}
	}
	return all
}

// Keep raises and clears alarms of a kind, so that exactly those of details are raised, by
// subject.
func (b *Board) Keep(kind string, details map[string]string) {
	for _, subject := range b.Subjects(kind) {
		if _, ok := details[subject]; !ok {
			b.Clear(kind, subject)
		}
	}
	for subject, detail := range details {
		b.Raise(kind, subject, detail)
	}
}

// Resend publishes the changes that could not be published before.
func (b *Board) Resend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
}

// send keeps the order: a raised alarm must not arrive after it was cleared.
func (b *Board) send(one Alarm) {
	if b.unsent = append(b.unsent, one); len(b.unsent) > maxUnsent {
		b.unsent = b.unsent[1:]
	}
	b.flush()
}

func (b *Board) flush() {
	for len(b.unsent) > 0 && b.publish(b.unsent[0]) == nil {
		b.unsent = b.unsent[1:]
	}
}
