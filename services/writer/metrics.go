package writer

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the writer has done since it started. The labels are
// bounded: reasons are a fixed set.
type metrics struct {
	received, written, duplicates, retries prometheus.Counter
	deadLetters                            *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: stage, Name: name, Help: help})
	}
	return &metrics{
		received:   counter("messages_received_total", "DECODED messages taken and settled, redeliveries included."),
		written:    counter("rows_written_total", "Rows inserted."),
		duplicates: counter("rows_duplicate_total", "Rows that the tables held already."),
		retries:    counter("database_retries_total", "Attempts that PostgreSQL did not answer or refused for a while."),
		deadLetters: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "f2mesh", Subsystem: stage, Name: "dead_letters_total", Help: "Messages and single rows stored on DEAD_LETTER.",
		}, []string{"reason"}),
	}
}
