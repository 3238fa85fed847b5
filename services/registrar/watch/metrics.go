package watch

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what was seen since the start. The labels are bounded: kinds and
// events are fixed sets.
type metrics struct {
	alarms            *prometheus.GaugeVec
	seen              *prometheus.CounterVec
	crlEnd, connected prometheus.Gauge
	expiring          prometheus.Gauge
	dropped           atomic.Uint64 // falls to 0 when the broker restarts
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "f2mesh", Subsystem: service, Name: name, Help: help}
	}
	m := &metrics{
		alarms: f.NewGaugeVec(gauge("alarms", "Alarms that are raised now."), []string{"alarm"}),
		seen: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: service, Name: "broker_events_total",
			Help: "What the broker's log tells: takeovers, refused logins, denied publishes.",
		}, []string{"event"}),
		crlEnd:    f.NewGauge(gauge("crl_next_update_timestamp_seconds", "When the revocation list in force ends, and locks out the fleet.")),
		connected: f.NewGauge(gauge("mqtt_connected", "1 while the broker's log is heard.")),
		expiring:  f.NewGauge(gauge("certificates_expiring", "Certificates that end within the warning time.")),
	}
	f.NewCounterFunc(prometheus.CounterOpts{
		Namespace: "f2mesh", Subsystem: service, Name: "broker_messages_dropped_total",
		Help: "Messages that the broker threw away since it started, as it counts them itself.",
	}, func() float64 { return float64(m.dropped.Load()) })
	return m
}
