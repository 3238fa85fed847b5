package keeper

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// serviceName is the keeper's name in subjects, alarms and metrics.
const serviceName = "keeper"

// metrics of the keeper, by stream: RAW, DECODED or COMMANDS.
type metrics struct {
	trimmed                              *prometheus.CounterVec
	backlog, history, room, full, alarms *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help, label string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "f2mesh", Subsystem: serviceName, Name: name, Help: help}, []string{label})
	}
	return &metrics{
		trimmed: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: serviceName, Name: "messages_trimmed_total", Help: "Acknowledged messages removed from the stream.",
		}, []string{"stream"}),
		backlog: gauge("backlog_bytes", "Size of the messages that are not acknowledged yet.", "stream"),
		history: gauge("history_seconds", "Age of the oldest message of the stream.", "stream"),
		room:    gauge("seconds_of_room", "Time until the stream is full if nothing is acknowledged from now on; absent while no messages arrive.", "stream"),
		full:    gauge("seconds_to_full", "Time until the stream is full if its backlog keeps on growing; absent while it does not grow.", "stream"),
		alarms:  gauge("alarms", "Alarms that are raised now.", "alarm"),
	}
}

func (m *metrics) show(s *trimmed, f *fill, left time.Duration, fills bool, now time.Time) {
	backlog := f.backlog()
	m.backlog.WithLabelValues(s.name).Set(backlog)
	age := time.Duration(0)
	if f.state.Msgs > 0 {
		age = now.Sub(f.state.FirstTime)
	}
	m.history.WithLabelValues(s.name).Set(age.Seconds())
	setOrDelete(m.full, s.name, left.Seconds(), fills)
	arriving := s.growth.arriving()
	setOrDelete(m.room, s.name, seconds(max(0, float64(f.limit)-backlog)/max(arriving, 1)).Seconds(), arriving > 0 && f.limit > 0)
}

func setOrDelete(g *prometheus.GaugeVec, stream string, value float64, there bool) {
	if there {
		g.WithLabelValues(stream).Set(value)
	} else {
		g.DeleteLabelValues(stream)
	}
}
