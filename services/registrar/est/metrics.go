package est

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what the server has done since it started. The labels are bounded:
// reasons and operations are fixed sets.
type metrics struct {
	issued, refused *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	counter := func(name, help, label string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "f2mesh", Subsystem: "registrar", Name: name, Help: help}, []string{label})
	}
	return &metrics{
		issued:  counter("enrolments_total", "Certificates issued over EST.", "operation"),
		refused: counter("enrolments_refused_total", "EST requests that were refused.", "reason"),
	}
}
