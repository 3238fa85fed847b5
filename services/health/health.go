// Package health checks a running mesh: it serves people and Prometheus over
// HTTPS, and raises alarms on NATS for a stage that is stalled, a stream near its
// limit or with damaged files, rising dead letters and a broker that drops messages.
package health

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// PasswordSource returns the current password of the API.
type PasswordSource func(context.Context) (string, error)

// Pages are what people look at in a browser, with a sign-in of their own.
type Pages interface {
	http.Handler
	// Off reports whether there are none.
	Off() bool
	// Run prepares what they show, until ctx ends. status returns what GET /status answers, as
	// of the last look at the mesh. wrong is told of each wrong password.
	Run(ctx context.Context, status func() ([]byte, error), wrong func(address string)) error
}

// Server is one health service; run it once.
type Server struct {
	cfg      Config
	password PasswordSource
	inner    http.Handler
	pages    Pages
	js       jetstream.JetStream
	log      *slog.Logger
	metrics  *metrics
	judge    *judge
	logins   *logins

	mu     sync.Mutex  // guards the fields below
	last   *MeshStatus // nil before the first look
	failed error       // why the last look did not succeed
}

// New returns a service. inner serves the paths /metrics, /livez and /debug to callers with
// the password, pages all others; where these are off inner does that, too. Metrics are in reg.
func New(cfg Config, password PasswordSource, inner http.Handler, pages Pages, js jetstream.JetStream, reg prometheus.Registerer, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	if cfg.CertFile == "" || cfg.KeyFile == "" {
		return nil, errors.New("health: the API needs cert and key")
	}
	m := newMetrics(reg)
	publish := func(one alarm.Alarm) error { return alarm.Publish(js.Conn(), one) }
	board := alarm.NewBoard(service, []string{StageStalled, StreamFull, Damaged, DeadLetters, Dropping, FailedLogins}, publish, m.alarms, log)
	return &Server{
		cfg: cfg, password: password, inner: inner, pages: pages, js: js, log: log, metrics: m,
		judge: newJudge(cfg, board), logins: newLogins(board, m.failedLogins), failed: errors.New("the mesh was not checked yet"),
	}, nil
}

// Run serves and looks until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	pair := &web.Pair{CertFile: s.cfg.CertFile, KeyFile: s.cfg.KeyFile} // a renewed one is used at once
	if _, err := pair.Get(nil); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("health: listening: %w", err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.Get}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return web.Serve(ctx, listener, config, s.handler(), s.log) })
	group.Go(func() error { s.watch(ctx); return nil })
	if !s.pages.Off() {
		wrong := func(address string) { s.logins.failed(address, time.Now()) }
		group.Go(func() error { return s.pages.Run(ctx, s.lastLook, wrong) })
	}
	return group.Wait()
}

// Alarms lists those of this service that are raised now.
func (s *Server) Alarms() alarm.Listing { return s.judge.alarms.Raised() }

// Ready reports whether the last check of the mesh succeeded.
func (s *Server) Ready(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

func (s *Server) watch(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	for {
		s.lookAndJudge(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// lookAndJudge is what is due every interval.
func (s *Server) lookAndJudge(ctx context.Context) {
	now, err := s.look(ctx)
	if ctx.Err() != nil {
		return
	}
	s.logins.forget(time.Now())
	s.judge.alarms.Resend()
	if err != nil {
		s.log.Warn("the mesh cannot be checked", "error", err)
		s.note(nil, err)
		return
	}
	s.judge.see(now)
	s.metrics.show(now)
	s.note(now, nil)
}

// lastLook is the last look at the mesh, as GET /status would answer it.
func (s *Server) lastLook() ([]byte, error) {
	s.mu.Lock()
	last, failed := s.last, s.failed
	s.mu.Unlock()
	if last == nil {
		return nil, failed
	}
	return json.Marshal(last)
}

func (s *Server) note(now *MeshStatus, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = err
	if now != nil {
		s.last = now
	}
}

// look is Look with rates since the last one and the certificates.
func (s *Server) look(ctx context.Context) (*MeshStatus, error) {
	now, err := Look(ctx, s.js)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last != nil {
		now.Rates(last)
	}
	now.FailedLogins = s.logins.count()
	now.Certificates, err = certificates(s.cfg.CertFile, s.cfg.CAs)
	return now, err
}
