package console

import (
	"embed"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/access"
)

//go:embed static
var static embed.FS

const signInPath = "/sign-in"

// policy lets pages load nothing but the console's own files, and nobody frame them.
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// route is one address of the console.
type route struct {
	pattern string
	right   access.Right // on the mesh; what is about a controller looks further
	serve   func(http.ResponseWriter, *http.Request, *session)
}

// Patterns are the addresses of the console that need a session, as http.ServeMux has them.
func Patterns() (all []string) {
	for _, one := range (*Console)(nil).routes() {
		all = append(all, one.pattern)
	}
	return all
}

// routes are all that need a session.
func (c *Console) routes() []route {
	return []route{
		{"GET /{$}", access.View, c.serveMesh},
		{"GET /live", access.View, c.liveMesh},
		{"GET /fleet", access.View, c.serveFleet},
		{"GET /fleet/{mac}", access.View, c.serveController},
		{"GET /fleet/{mac}/live", access.View, c.liveController},
		{"GET /fleet/{mac}/series", access.View, c.serveSeries},
		{"POST /fleet/{mac}/command", access.View, c.sendCommand},
		{"GET /alarms", access.View, c.serveAlarms},
		{"GET /alarms/{alarm}", access.View, c.serveAlarm},
		{"POST /alarms/{alarm}", access.View, c.changeAlarm},
		{"GET /dead", access.View, c.serveLetters},
		{"GET /dead/{letter}", access.View, c.serveLetter},
		{"POST /dead/{letter}", access.View, c.replayLetter},
		{"GET /ledger", access.View, c.serveLedger},
		{"GET /audit", access.Administer, c.serveAudit},
		{"GET /secrets", access.Administer, c.serveSecrets},
		{"POST /sign-out", access.View, c.signOut},
	}
}

func (c *Console) handler() http.Handler {
	mux := http.NewServeMux()
	files, _ := fs.Sub(static, "static") // is there: embedded
	fileServer := http.FileServerFS(files)
	mux.HandleFunc("GET /static/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "private, max-age=300")
		http.StripPrefix("/static/", fileServer).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET "+signInPath, c.showSignIn)
	mux.HandleFunc("POST "+signInPath, c.signIn)
	for _, one := range c.routes() {
		mux.Handle(one.pattern, c.signedIn(one))
	}
	mux.Handle("/", c.signedIn(route{right: access.View, serve: func(w http.ResponseWriter, r *http.Request, s *session) {
		c.fail(w, r, s, http.StatusNotFound, "There is no such page.")
	}}))
	// A browser says where a request comes from: others' pages send none that changes anything.
	return headers(http.NewCrossOriginProtection().Handler(mux))
}

// headers bounds what a browser lets the answers do.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// require shows why somebody may not do something; it returns false then.
func (c *Console) require(w http.ResponseWriter, r *http.Request, s *session, right access.Right, of access.Place) bool {
	ok, reason := c.allowed(s, right, of)
	if !ok {
		c.fail(w, r, s, http.StatusForbidden, "Not allowed: "+reason+".")
	}
	return ok
}

// signedIn serves a route to who has a session that the access file lets do it.
func (c *Console) signedIn(one route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := c.sessions.find(r, time.Now())
		if s == nil {
			c.showSignIn(w, r)
			return
		}
		if ok, _ := c.allowed(s, access.View, access.Place{}); !ok { // no longer in the access file
			c.sessions.leave(s, false)
			c.showSignIn(w, r)
			return
		}
		if !c.require(w, r, s, one.right, access.Place{}) {
			return
		}
		c.fleet.use()
		one.serve(w, r, s)
	})
}
