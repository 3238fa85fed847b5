package bridge

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the bridge. The labels are bounded: reasons are a fixed set.
type metrics struct {
	received, stored, repeats, duplicates, retained prometheus.Counter
	deadLetters                                     *prometheus.CounterVec
	connected, waiting                              prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help})
	}
	return &metrics{
		received:   counter("messages_received_total", "Messages received from the MQTT broker."),
		stored:     counter("messages_stored_total", "Messages stored on RAW."),
		repeats:    counter("messages_repeat_total", "Messages stored on RAW and marked as possible repeats of an earlier event."),
		duplicates: counter("messages_duplicate_total", "Messages dropped because the broker sent them again and RAW has them."),
		retained:   counter("messages_retained_total", "Dropped copies of retained messages."),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages stored on DEAD_LETTER.",
		}, []string{"reason"}),
		connected: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "mqtt_connected", Help: "1 while subscribed to the MQTT broker, else 0.",
		}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "waiting_bytes", Help: "Memory of messages received from the broker and not stored yet.",
		}),
	}
}
