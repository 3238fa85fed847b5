// Package simulator plays a fleet of F2 controllers against a broker: each with
// its own certificate over mutual TLS, all components of all three modes, RS-485
// frames that match the fleet's metadata, and answers to commands. It also
// plays what goes wrong in the field: connections that break, older firmware,
// and malformed messages.
//
// A message is acknowledged when its PUBACK has come, and is counted then and
// once. What is unacknowledged when a connection breaks is published again, in
// order and with the same bytes, once the controller is back.
//
// Each controller has two goroutines: one builds messages and writes them, many
// to a system call and TLS record; the other reads PUBACKs and commands. The
// first owns the state of the components; window.mu guards what the two share.
// Of paho.mqtt.golang only the codec is used, for everything but PUBLISH and
// PUBACK: its client passes each message between five goroutines and completes
// a message's token without a PUBACK when it reconnects.
//
// The package makes no certificates, metadata or ACL; pkg/identity, pkg/database/fleet
// and pkg/server/mosquitto do.
package simulator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
)

// Simulator is a fleet of simulated controllers. Run may be called once.
type Simulator struct {
	cfg         Config
	controllers []fleet.Controller
	log         *slog.Logger
	broker      string // host and port
	budget      budget
	malformed   *Malformed
	held        atomic.Bool   // by Hold
	connecting  chan struct{} // a token for each controller that connects now
	connected   atomic.Int64
	counters    counters
	lastError   atomic.Pointer[error] // of a connection, for the progress line
	gate        *gate
}

// New makes a simulator of the controllers. It does not connect yet.
func New(cfg Config, controllers []fleet.Controller, log *slog.Logger) *Simulator {
	cfg.setDefaults()
	return &Simulator{
		cfg:         cfg,
		controllers: controllers,
		log:         log,
		budget:      budget{good: cfg.Messages, malformed: cfg.Malformed},
		malformed:   NewMalformed(cfg.Seed),
		gate:        newGate(len(controllers)),
		connecting:  make(chan struct{}, max(cfg.Connecting, 1)),
	}
}

// Run plays the fleet until Messages and Malformed are sent and acknowledged,
// or until ctx ends: then it waits up to two seconds for what is under way and
// disconnects. The error is nil unless the configuration or a certificate is
// unusable, or ctx ended a bounded run before its end. A broker that is away or
// refuses a controller is no error: the controller tries again.
func (s *Simulator) Run(ctx context.Context) (Report, error) {
	devices, err := s.prepare()
	if err != nil {
		return Report{}, fmt.Errorf("preparing simulator: %w", err)
	}
	s.log.Info("simulator started", "controllers", len(devices), "interval", s.cfg.Interval.String(), "messages", s.cfg.Messages, "malformed", s.cfg.Malformed, "seed", s.cfg.Seed)

	s.play(ctx, devices)

	report := s.Report()
	s.log.Info("simulator stopped", "sent", report.Sent, "acknowledged", report.Acknowledged, "retried", report.Retried, "duration", report.Duration.String())
	if s.budget.bounded() && (s.budget.left() || report.Unacknowledged > 0) {
		return report, fmt.Errorf("simulating: %w", context.Cause(ctx))
	}
	return report, nil
}

func (s *Simulator) play(ctx context.Context, devices []*device) {
	watching, stopWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watchConnections(watching) })
	if s.cfg.Hold != nil {
		watch.Go(func() { s.watchHold(watching, devices) })
	}
	if s.cfg.Interval > 0 {
		s.gate.open()
	}
	timeout := time.AfterFunc(gateTimeout, s.gate.open)
	defer timeout.Stop()
	var wg sync.WaitGroup
	for _, d := range devices {
		wg.Go(func() { d.run(ctx) })
	}
	wg.Wait()
	stopWatching()
	watch.Wait()
}

// prepare checks the configuration and loads all certificates.
func (s *Simulator) prepare() ([]*device, error) {
	if err := s.cfg.Validate(); err != nil {
		return nil, err
	}
	if len(s.controllers) == 0 {
		return nil, errors.New("the fleet has no controllers")
	}
	name, err := s.parseBroker()
	if err != nil {
		return nil, err
	}
	roots, err := identity.Pool(s.cfg.CAFile)
	if err != nil {
		return nil, err
	}
	devices := make([]*device, len(s.controllers))
	var group errgroup.Group
	group.SetLimit(s.cfg.Connecting)
	for i := range devices {
		group.Go(func() error {
			config, err := loadIdentity(s.cfg.Devices, s.controllers[i].MAC, roots, name)
			devices[i] = newDevice(s, i, config)
			return err
		})
	}
	return devices, group.Wait()
}

// parseBroker returns the host that the broker's certificate has to be for.
func (s *Simulator) parseBroker() (host string, err error) {
	broker, err := url.Parse(s.cfg.Broker)
	if err != nil {
		return "", fmt.Errorf("parsing broker URL: %w", err)
	}
	switch broker.Scheme {
	case "ssl", "tls", "mqtts":
	default:
		return "", fmt.Errorf("parsing broker URL: unknown scheme %q; known: ssl, tls, mqtts", broker.Scheme)
	}
	port := broker.Port()
	if port == "" {
		port = "8883"
	}
	s.broker = net.JoinHostPort(broker.Hostname(), port)
	return broker.Hostname(), nil
}

// progressEvery is how often a change of the number of connections is logged.
const progressEvery = 2 * time.Second

// watchConnections logs the fleet's connections as a whole: a line for each of
// thousands of controllers would say less.
func (s *Simulator) watchConnections(ctx context.Context) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	logged := int64(-1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		n := s.connected.Load()
		if n == logged {
			continue
		}
		logged = n
		s.logConnections(n)
	}
}

// watchHold asks Hold, and wakes the fleet when it may go on.
func (s *Simulator) watchHold(ctx context.Context, devices []*device) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if hold := s.cfg.Hold(s.Report().Acknowledged); s.held.Swap(hold) && !hold {
			for _, d := range devices {
				d.window.signal()
			}
		}
	}
}

func (s *Simulator) logConnections(n int64) {
	if n == int64(len(s.controllers)) {
		s.log.Info("all controllers connected", "controllers", n)
		return
	}
	args := []any{"connected", n, "controllers", len(s.controllers)}
	if err := s.lastError.Load(); err != nil {
		args = append(args, "last_error", *err)
	}
	s.log.Info("controllers connecting", args...)
}
