package alarm

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Board holds the alarms of one service that are raised, tells NATS of each change
// once, and counts them in a metric. It is safe for concurrent use.
type Board struct {
	service string
	publish func(Alarm) error
	gauge   *prometheus.GaugeVec
	log     *slog.Logger

	mu     sync.Mutex // guards the fields below
	raised map[[2]string]Alarm
	unsent []Alarm // while NATS was away, in order
}

// maxUnsent bounds what is kept for NATS: the latest. The metrics have all of it.
const maxUnsent = 10000

// NewBoard returns a board without alarms. publish fails while NATS is away; gauge
// has the label "alarm", the kind, and is 0 for each of kinds from the start.
func NewBoard(service string, kinds []string, publish func(Alarm) error, gauge *prometheus.GaugeVec, log *slog.Logger) *Board {
	for _, kind := range kinds {
		gauge.WithLabelValues(kind) // is 0, not absent
	}
	return &Board{service: service, publish: publish, gauge: gauge, log: log, raised: map[[2]string]Alarm{}}
}

// Raise tells of an alarm unless it is raised already.
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

// Clear tells that an alarm is over, if it was raised.
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

// Subjects lists whom raised alarms of a kind are about.
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

// Keep makes the raised alarms of a kind exactly those of details, by subject.
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

// Resend tells NATS what it did not take.
func (b *Board) Resend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flush()
}

// send keeps the order: an alarm must not be heard after its own end.
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
