package bridge

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the bridge has done since it started. The labels are
// bounded: reasons are a fixed set.
type metrics struct {
	received, stored, duplicates prometheus.Counter
	deadLetters                  *prometheus.CounterVec
	connected                    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help})
	}
	return &metrics{
		received:   counter("messages_received_total", "Messages taken from the MQTT broker."),
		stored:     counter("messages_stored_total", "Messages stored on RAW."),
		duplicates: counter("messages_duplicate_total", "Messages that RAW held already."),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages stored on DEAD_LETTER.",
		}, []string{"reason"}),
		connected: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "mqtt_connected", Help: "1 while subscribed at the MQTT broker.",
		}),
	}
}
