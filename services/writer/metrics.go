package writer

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the writer has done since it started. The labels are
// bounded: reasons and alarms are fixed sets.
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
		received:   counter("messages_received_total", "DECODED messages taken and settled, redeliveries included."),
		written:    counter("rows_written_total", "Rows inserted."),
		duplicates: counter("rows_duplicate_total", "Rows that the tables held already."),
		conflicts:  counter("rows_conflicting_total", "Values kept in measurement_history, because the table has another for the same moment."),
		replaced:   counter("rows_replaced_total", "Rows whose values a message that was decoded again has replaced."),
		retries:    counter("database_retries_total", "Attempts that PostgreSQL did not answer or refused for a while."),
		probes:     counter("database_probes_total", "Times the writer tried whether the tables take rows, because some were refused."),
		splits:     counter("batches_split_total", "Batches that were written in parts, because they were refused or took too long."),
		apart:      f.NewGauge(gauge("messages_apart", "Messages of controllers whose rows PostgreSQL does not finish in time, waiting apart from the others.")),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages stored on DEAD_LETTER.",
		}, []string{"reason"}),
		alarms: f.NewGaugeVec(gauge("alarms", "Alarms that are raised now."), []string{"alarm"}),
	}
}
