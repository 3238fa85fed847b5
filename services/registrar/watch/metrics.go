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
	dropped           dropped
}

// dropped is how many messages the broker threw away since it started, as it counts
// them itself. It is no metric before the broker has told: to begin at zero and then
// be what it was would be a rise, and an alarm at each start of the registrar; see assume.
type dropped struct {
	count atomic.Uint64 // falls to 0 when the broker restarts
	known atomic.Bool
}

func (d *dropped) set(n uint64) {
	d.count.Store(n)
	d.known.Store(true)
}

// assume takes a count that the broker has not told for zero: a first message that is
// dropped then is a rise.
func (d *dropped) assume() { d.known.Store(true) }

var droppedDesc = prometheus.NewDesc(prometheus.BuildFQName("f2mesh", service, "broker_messages_dropped_total"),
	"Messages that the broker threw away since it started, as it counts them itself.", nil, nil)

// Describe makes it a prometheus.Collector.
func (d *dropped) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- droppedDesc }

// Collect gives nothing, or the one series.
func (d *dropped) Collect(metrics chan<- prometheus.Metric) {
	if d.known.Load() {
		metrics <- prometheus.MustNewConstMetric(droppedDesc, prometheus.CounterValue, float64(d.count.Load()))
	}
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
	reg.MustRegister(&m.dropped)
	return m
}
