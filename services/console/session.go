package console

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"sync"
	"time"
)

const (
	// cookieName has the prefix that keeps other hosts and plain HTTP from setting it.
	cookieName = "__Host-f2mesh"
	// maxSessions bounds the sessions of all people: the one that was used least recently
	// ends for a new one.
	maxSessions = 2000
)

// session is one browser of a person that signed in.
type session struct {
	person        person
	started, used time.Time
	ended         chan struct{} // closed at its end: live pages end with it
}

// sessions are those of all browsers, in memory: they end with the process. It is safe for
// concurrent use.
type sessions struct {
	idle, lifetime time.Duration

	mu      sync.Mutex                     // guards byToken and the sessions
	byToken map[[sha256.Size]byte]*session // by the token's digest, so that nobody reads tokens out of memory
}

func newSessions(idle, lifetime time.Duration) *sessions {
	return &sessions{idle: idle, lifetime: lifetime, byToken: map[[sha256.Size]byte]*session{}}
}

// open begins a session and returns its token, of 256 random bits.
func (s *sessions) open(p person, now time.Time) (token string) {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails
	token = base64.RawURLEncoding.EncodeToString(bits[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.byToken) >= maxSessions {
		s.endOldest()
	}
	s.byToken[sha256.Sum256([]byte(token))] = &session{person: p, started: now, used: now, ended: make(chan struct{})}
	return token
}

func (s *sessions) endOldest() {
	var oldest [sha256.Size]byte
	var at *session
	for digest, one := range s.byToken {
		if at == nil || one.used.Before(at.used) {
			oldest, at = digest, one
		}
	}
	s.end(oldest, at)
}

// end ends a session. The caller has mu.
func (s *sessions) end(digest [sha256.Size]byte, one *session) {
	delete(s.byToken, digest)
	close(one.ended)
}

// find returns the session of a request, and notes that it was used; nil if there is none.
func (s *sessions) find(r *http.Request, now time.Time) *session {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	digest := sha256.Sum256([]byte(cookie.Value))
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byToken[digest]
	if one == nil {
		return nil
	}
	if s.over(one, now) {
		s.end(digest, one)
		return nil
	}
	one.used = now
	return one
}

func (s *sessions) over(one *session, now time.Time) bool {
	return now.Sub(one.used) > s.idle || now.Sub(one.started) > s.lifetime
}

// forget ends the sessions whose time is over.
func (s *sessions) forget(now time.Time) {
	s.endWhere(func(one *session) bool { return s.over(one, now) })
}

// leave ends one session, or with everywhere all of its person.
func (s *sessions) leave(of *session, everywhere bool) {
	s.endWhere(func(one *session) bool { return one == of || everywhere && one.person.Name == of.person.Name })
}

func (s *sessions) endWhere(chosen func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for digest, one := range s.byToken {
		if chosen(one) {
			s.end(digest, one)
		}
	}
}

// cookie is what the browser keeps; an empty token removes it.
func cookie(token string) *http.Cookie {
	c := &http.Cookie{Name: cookieName, Value: token, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if token == "" {
		c.MaxAge = -1
	}
	return c
}
