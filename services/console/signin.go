package console

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// Attempts to sign in that a source has: so many at once, and one more every ten seconds.
const (
	attemptsPerSecond = 0.1
	attemptsAtOnce    = 10
)

type signInPage struct {
	Next, Name, Problem string
}

// showSignIn is the answer to whoever has not signed in, at every address.
func (c *Console) showSignIn(w http.ResponseWriter, r *http.Request) {
	next := "/"
	if r.Method == http.MethodGet && r.URL.Path != signInPath {
		next = r.URL.RequestURI()
	}
	code := http.StatusUnauthorized
	if r.URL.Path == signInPath {
		code = http.StatusOK
	}
	c.askToSignIn(w, r, code, signInPage{Next: next})
}

// signIn begins a session for who knows the password.
func (c *Console) signIn(w http.ResponseWriter, r *http.Request) {
	source := web.Network(r.RemoteAddr)
	if !c.attempts.Allow(source) {
		w.Header().Set("Retry-After", "10")
		c.askToSignIn(w, r, http.StatusTooManyRequests, signInPage{Next: "/", Problem: "Too many attempts from your address. Wait ten seconds, then try again."})
		return
	}
	name, next := r.PostFormValue("name"), local(r.PostFormValue("next"))
	p, ok, err := c.check(r, name, r.PostFormValue("password"))
	switch {
	case err != nil:
		c.log.Error("no password to compare with", "error", err)
		c.askToSignIn(w, r, http.StatusServiceUnavailable, signInPage{Next: next, Name: name, Problem: "The password cannot be checked now: its secret cannot be read. The log has the reason."})
	case !ok:
		c.wrong(web.HostOf(r.RemoteAddr))
		c.askToSignIn(w, r, http.StatusUnauthorized, signInPage{Next: next, Name: name, Problem: "Name or password is wrong."})
	default:
		if old := c.sessions.find(r, time.Now()); old != nil {
			c.sessions.leave(old, false)
		}
		http.SetCookie(w, cookie(c.sessions.open(p, time.Now())))
		http.Redirect(w, r, next, http.StatusSeeOther) //nolint:gosec // local has checked it
	}
}

// check compares what somebody enters. It takes the same time for a name that nobody has.
func (c *Console) check(r *http.Request, name, password string) (p person, ok bool, err error) {
	p, ok = c.find(name)
	want, err := c.from.Password(r.Context(), p.secret)
	if errors.Is(err, secret.ErrNotFound) && p.named {
		c.log.Warn("a person of the access file has no password", "person", p.Name, "secret", p.secret)
		want, err = "", nil
	}
	if err != nil {
		return p, false, err
	}
	entered, known := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want))
	same := subtle.ConstantTimeCompare(entered[:], known[:]) == 1
	return p, ok && same && want != "", nil
}

// local is an address of this console, "/" in place of any other.
func local(next string) string {
	if !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") || strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(next, signInPath) {
		return "/"
	}
	return next
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request, s *session) {
	c.sessions.leave(s, r.PostFormValue("everywhere") != "")
	http.SetCookie(w, cookie(""))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
