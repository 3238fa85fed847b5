package health

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/web"
)

// lookTimeout bounds one look for a caller.
const lookTimeout = 20 * time.Second

// handler is the API. Only /healthz, which tells nothing but that this process
// answers, is for everybody.
func (s *Server) handler() http.Handler {
	closed := http.NewServeMux()
	closed.HandleFunc("GET /readyz", s.serveReady)
	closed.HandleFunc("GET /status", s.serveStatus)
	closed.Handle("/", s.inner)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.Handle("/", s.authenticated(closed))
	return mux
}

// authenticated passes on who knows the password, as a bearer token or as that of
// any user.
func (s *Server) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := s.password(r.Context())
		if err != nil || want == "" {
			s.log.Error("no password for the health API", "error", err)
			http.Error(w, "the service has no password to compare with", http.StatusServiceUnavailable)
			return
		}
		shown := presented(r)
		got := sha256.Sum256([]byte(shown))
		if known := sha256.Sum256([]byte(want)); subtle.ConstantTimeCompare(got[:], known[:]) != 1 {
			if shown != "" { // asking without one is how clients begin
				s.logins.failed(web.Host(r.RemoteAddr), time.Now())
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="f2mesh", charset="UTF-8"`)
			http.Error(w, "a password is needed: the secret health_password", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func presented(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return ""
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	now, err := s.lookFor(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
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
	now, err := s.lookFor(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(now) // the caller has gone
}

func (s *Server) lookFor(r *http.Request) (*Status, error) {
	ctx, cancel := context.WithTimeout(r.Context(), lookTimeout)
	defer cancel()
	return s.look(ctx)
}
