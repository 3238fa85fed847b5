// Package probe exposes the state of a running service: liveness, readiness and Prometheus
// metrics over HTTP, and `nats micro` over NATS. The service itself defines what ready means.
package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Service is one running service.
type Service struct {
	Name        string // such as bridge
	Version     string // SemVer
	Description string
	// Ready returns an error if the service cannot do its work now. It checks what the service
	// depends on, and must be safe for concurrent use.
	Ready    func(context.Context) error
	Gatherer prometheus.Gatherer
	// Secrets returns the sources of the service's secrets; nil if it has none. It must be safe
	// for concurrent use.
	Secrets func() []secret.Status
	// Alarms returns the service's raised alarms; nil if it has no alarms. It must be safe for
	// concurrent use.
	Alarms func() alarm.Listing
}

// readyTimeout bounds one readiness check.
const readyTimeout = 3 * time.Second

// Handler serves /livez, /readyz and /metrics for all services that run at the time of a
// request.
func Handler(services func() []Service) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		for _, s := range services() {
			if err := s.Ready(ctx); err != nil {
				http.Error(w, s.Name+": "+err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		var gatherers prometheus.Gatherers
		for _, s := range services() {
			gatherers = append(gatherers, s.Gatherer)
		}
		promhttp.HandlerFor(gatherers, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
	return mux
}

// AddProfiles adds /debug/pprof, for a listener that only the operator can reach.
func AddProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
}
