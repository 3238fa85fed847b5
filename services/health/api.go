package health

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// lookTimeout bounds one look for a caller.
const lookTimeout = 20 * time.Second

// handler is the API. Only /healthz, which reports nothing but that this process runs, is
// open to everybody; pages have their own sign-in.
func (s *Server) handler() http.Handler {
	closed := http.NewServeMux()
	closed.HandleFunc("GET /readyz", s.serveReady)
	closed.HandleFunc("GET /status", s.serveStatus)
	closed.Handle("/", s.inner)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	password := web.Password{Secret: "health_password", Get: s.password, Log: s.log, Wrong: func(address string) { s.logins.failed(address, time.Now()) }}
	guarded := password.Guard(closed)
	if s.pages.Off() {
		mux.Handle("/", guarded)
		return mux
	}
	for _, path := range []string{"/readyz", "/status", "/metrics", "/livez", "/debug/"} {
		mux.Handle(path, guarded)
	}
	mux.Handle("/", s.pages)
	return mux
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	now := s.lookFor(w, r)
	if now == nil {
		return
	}
	var causes []string
	for i := range now.Stages {
		if one := &now.Stages[i]; !one.Ready {
			causes = append(causes, one.Stage+": "+one.Cause)
		}
	}
	if len(causes) > 0 {
		http.Error(w, strings.Join(causes, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	now := s.lookFor(w, r)
	if now == nil {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(now) // the caller has gone
}

// lookFor returns nil if it has told the caller that the mesh cannot be checked.
func (s *Server) lookFor(w http.ResponseWriter, r *http.Request) *MeshStatus {
	ctx, cancel := context.WithTimeout(r.Context(), lookTimeout)
	defer cancel()
	now, err := s.look(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return nil
	}
	return now
}
