package alarm

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
)

// serviceName is the service's name in subjects, alarms and metrics.
const serviceName = "alarm"

// metrics of the service.
type metrics struct {
	received, unreadable, overtaken prometheus.Counter
	transitions, notifications      *prometheus.CounterVec
	alarms, raised                  *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: serviceName, Name: name, Help: help}
	}
	return &metrics{
		received:      f.NewCounter(counter("messages_received_total", "Messages received from DECODED.")),
		unreadable:    f.NewCounter(counter("messages_unreadable_total", "Messages of DECODED that are not as they should be. The writer makes dead letters of them.")),
		overtaken:     f.NewCounter(counter("overtaken_total", "Changes of an alarm that were made again, because a person or another evaluator was faster.")),
		transitions:   f.NewCounterVec(counter("transitions_total", "Entries stored on ALARM."), []string{"status"}),
		notifications: f.NewCounterVec(counter("notifications_total", "Notifications by receiver and result: delivered, failed (it is retried) or given_up."), []string{"receiver", "result"}),
		alarms: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: serviceName, Name: "alarms", Help: "Alarms of the service itself that are raised now.",
		}, []string{"alarm"}),
		raised: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: serviceName, Name: "raised", Help: "Alarms that are raised now, by severity. One that is shelved or acknowledged counts, too.",
		}, []string{"severity"}),
	}
}

func (m *metrics) count(e *alert.Entry) { m.transitions.WithLabelValues(string(e.Status)).Inc() }
