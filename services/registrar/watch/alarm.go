package watch

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/alarm"
)

// service is the registrar's name in subjects and alarms.
const service = "registrar"

// Kinds of alarms, the last token of their subject.
const (
	Expiry       = "certificate_expiry"
	CRL          = "crl_expiry"
	Clone        = "clone"
	Silent       = "silent"
	FailedLogins = "failed_logins"
	ForeignTopic = "foreign_topic"
)

// alarms are those that are raised. It is safe for concurrent use.
type alarms struct {
	publish func(alarm.Alarm) error
	gauge   *prometheus.GaugeVec
	log     *slog.Logger

	mu     sync.Mutex // guards the fields below
	raised map[[2]string]alarm.Alarm
	unsent []alarm.Alarm // while NATS was away, in order
}

// maxUnsent bounds what is kept for NATS; the metrics have all of it.
const maxUnsent = 10000

func newAlarms(publish func(alarm.Alarm) error, gauge *prometheus.GaugeVec, log *slog.Logger) *alarms {
	for _, kind := range []string{Expiry, CRL, Clone, Silent, FailedLogins, ForeignTopic} {
		gauge.WithLabelValues(kind) // is 0, not absent
	}
	return &alarms{publish: publish, gauge: gauge, log: log, raised: map[[2]string]alarm.Alarm{}}
}

// raise tells of an alarm unless it is raised already.
func (a *alarms) raise(kind, subject, detail string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{kind, subject}
	if _, ok := a.raised[key]; ok {
		return
	}
	one := alarm.Alarm{Kind: kind, Service: service, Subject: subject, Since: time.Now().UTC(), Raised: true, Detail: detail}
	a.raised[key] = one
	a.gauge.WithLabelValues(kind).Inc()
	a.log.Warn("alarm raised", "alarm", kind, "subject", subject, "detail", detail)
	a.send(one)
}

// clear tells that an alarm is over, if it was raised.
func (a *alarms) clear(kind, subject string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := [2]string{kind, subject}
	one, ok := a.raised[key]
	if !ok {
		return
	}
	delete(a.raised, key)
	a.gauge.WithLabelValues(kind).Dec()
	a.log.Info("alarm cleared", "alarm", kind, "subject", subject)
	one.Raised = false
	a.send(one)
}

// subjects lists whom raised alarms of a kind are about.
func (a *alarms) subjects(kind string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []string
	for key := range a.raised {
		if key[0] == kind {
			all = append(all, key[1])
		}
	}
	return all
}

// keep makes the raised alarms of a kind exactly those of details, by subject.
func (a *alarms) keep(kind string, details map[string]string) {
	for _, subject := range a.subjects(kind) {
		if _, ok := details[subject]; !ok {
			a.clear(kind, subject)
		}
	}
	for subject, detail := range details {
		a.raise(kind, subject, detail)
	}
}

// resend tells NATS what it did not take.
func (a *alarms) resend() {
	a.mu.Lock()
	defer a.mu.Unlock()
	unsent := a.unsent
	a.unsent = nil
	for _, one := range unsent {
		a.send(one)
	}
}

func (a *alarms) send(one alarm.Alarm) {
	if err := a.publish(one); err != nil && len(a.unsent) < maxUnsent {
		a.unsent = append(a.unsent, one)
	}
}
