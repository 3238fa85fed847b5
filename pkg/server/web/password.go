package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// Password is what a caller has to know.
type Password struct {
	Secret string // its name, for a caller who does not know it
	// Get answers it as it is now.
	Get func(context.Context) (string, error)
	// Wrong is told of each wrong one, and from where; nil for nobody.
	Wrong func(address string)
	Log   *slog.Logger
}

// Guard passes on requests that show the password, as a bearer token or as that of any
// user.
func (p Password) Guard(next http.Handler) http.Handler {
	lines := rate.NewLimiter(rate.Every(time.Second), 20) // of the log, which no stranger may fill
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := p.Get(r.Context())
		if err != nil || want == "" {
			if lines.Allow() {
				p.Log.Error("no password to compare with", "secret", p.Secret, "error", err)
			}
			http.Error(w, "the service has no password to compare with", http.StatusServiceUnavailable)
			return
		}
		shown := presented(r)
		got, known := sha256.Sum256([]byte(shown)), sha256.Sum256([]byte(want))
		if subtle.ConstantTimeCompare(got[:], known[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		if shown != "" { // asking without one is how clients begin
			if p.Wrong != nil {
				p.Wrong(HostOf(r.RemoteAddr))
			}
			if lines.Allow() {
				p.Log.Warn("asked with a wrong password", "secret", p.Secret, "address", HostOf(r.RemoteAddr))
			}
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="f2mesh", charset="UTF-8"`)
		http.Error(w, "a password is needed: the secret "+p.Secret, http.StatusUnauthorized)
	})
}

// GuardStrangers is Guard for who is on another machine, or in another container.
func (p Password) GuardStrangers(next http.Handler) http.Handler {
	guarded := p.Guard(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ip, err := netip.ParseAddr(HostOf(r.RemoteAddr)); err == nil && ip.IsLoopback() {
			next.ServeHTTP(w, r)
			return
		}
		guarded.ServeHTTP(w, r)
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
