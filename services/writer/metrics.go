package writer

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the writer. The labels are bounded: reasons and alarms are fixed sets.
type metrics struct {
	received, written, duplicates prometheus.Counter
	conflicts, replaced           prometheus.Counter
	retries, probes, splits       prometheus.Counter
	apart                         prometheus.Gauge
	deadLetters                   *prometheus.CounterVec
	alarms                        *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help}
	}
	return &metrics{
		received:   counter("messages_received_total", "DECODED messages written or made dead letters, redeliveries included."),
		written:    counter("rows_written_total", "Rows inserted."),
		duplicates: counter("rows_duplicate_total", "Rows that the tables had already."),
		conflicts:  counter("rows_conflicting_total", "Values stored in measurement_history because the table has another value for the same time."),
		replaced:   counter("rows_replaced_total", "Rows whose values were replaced by a message that was decoded again."),
		retries:    counter("database_retries_total", "Attempts to write that failed and are retried."),
		probes:     counter("database_probes_total", "Tests whether the tables accept rows, after rows were refused."),
		splits:     counter("batches_split_total", "Batches written in parts because they were refused or took too long."),
		apart:      f.NewGauge(gauge("messages_apart", "Waiting messages of controllers whose rows PostgreSQL refuses or does not write in time.")),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages stored on DEAD_LETTER.",
		}, []string{"reason"}),
		alarms: f.NewGaugeVec(gauge("alarms", "Alarms that are raised now."), []string{"alarm"}),
	}
}
