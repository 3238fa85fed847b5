package command

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/f2mesh/f2mesh/pkg/message/outcome"
)

// metrics count outcomes that RESULT has stored.
type metrics struct {
	outcomes *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{outcomes: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Namespace: "f2mesh", Subsystem: "bridge", Name: "command_outcomes_total", Help: "Commands by outcome.",
	}, []string{"outcome"})}
	for _, o := range []outcome.Outcome{outcome.Refused, outcome.Expired, outcome.Delivered, outcome.Confirmed, outcome.Unknown} {
		m.outcomes.WithLabelValues(string(o))
	}
	return m
}
