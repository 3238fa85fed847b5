package server

import (
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Observer passes what the broker tells of denied publishes to the registrar that runs in the
// same process.
type Observer struct {
	registrar atomic.Pointer[Server] // nil: none runs
}

// Tell passes on a line of the broker's log.
func (o *Observer) Tell(line string) {
	if r := o.registrar.Load(); r != nil {
		r.Observe(line)
	}
}

// ToldBy notes the registrar that is built.
func (o *Observer) ToldBy(inner service.Build) service.Build {
	return func(h *service.Host, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (service.Runner, error) {
		r, err := inner(h, streams, reg, log)
		if s, ok := r.(*Server); ok && err == nil {
			o.registrar.Store(s)
		}
		return r, err
	}
}
