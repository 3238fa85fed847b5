// Package simulator simulates a fleet of F2 controllers: each with its own certificate
// over mutual TLS, all components of all three modes, RS-485 frames that match the
// fleet's metadata, and answers to commands. It also simulates what goes wrong in the
// field: lost connections, older firmware, and malformed messages.
//
// A message counts as acknowledged, once, when its PUBACK has come. After a lost
// connection a controller publishes its unacknowledged messages again, in order and with
// the same bytes.
//
// Each controller has two goroutines. One builds messages and writes many of them with
// one system call and TLS record; it owns the state of the components. The other reads
// PUBACKs and commands. window.mu guards what they share. From paho.mqtt.golang only the
// codec is used, and not for PUBLISH and PUBACK: paho's client passes each message between
// five goroutines, and completes a message's token without a PUBACK when it reconnects.
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
	held        atomic.Bool   // paused: too far ahead of the bridge
	connecting  chan struct{} // a token for each controller that connects now
	connected   atomic.Int64
	counters    counters
	progress    progress
	digests     *digests
	lastError   atomic.Pointer[error] // of a connection, for the log
	gate        *gate
}

// New returns a simulator of the controllers. It does not connect yet.
func New(cfg Config, controllers []fleet.Controller, log *slog.Logger) *Simulator {
	cfg.setDefaults()
	return &Simulator{
		cfg:         cfg,
		controllers: controllers,
		log:         log,
		budget:      budget{good: cfg.Messages, malformed: cfg.Malformed},
		digests:     newDigests(cfg.Digests),
		gate:        newGate(len(controllers)),
		connecting:  make(chan struct{}, max(cfg.Connecting, 1)),
	}
}

// Run simulates the fleet until Messages and Malformed are sent and acknowledged, or
// until ctx ends: then it waits up to two seconds for PUBACKs and disconnects. It returns
// an error if the configuration or a certificate is unusable, if the digests cannot be
// written, or if ctx ended a bounded run early. A broker that is away or refuses a
// controller is not an error: the controller tries again.
func (s *Simulator) Run(ctx context.Context) (Totals, error) {
	devices, err := s.prepare()
	if err != nil {
		return Totals{}, fmt.Errorf("preparing simulator: %w", err)
	}
	s.log.Info("simulator started", "controllers", len(devices), "interval", s.cfg.Interval.String(), "messages", s.cfg.Messages, "malformed", s.cfg.Malformed, "seed", s.cfg.Seed)

	s.play(ctx, devices)

	report := s.Report()
	s.log.Info("simulator stopped", "sent", report.Sent, "acknowledged", report.Acknowledged, "retried", report.Retried, "duration", report.Duration.String())
	err = s.digests.flush()
	if s.budget.bounded() && (s.budget.left() || report.Unacknowledged > 0) {
		err = errors.Join(fmt.Errorf("simulating: %w", context.Cause(ctx)), err)
	}
	return report, err
}

func (s *Simulator) play(ctx context.Context, devices []*device) {
	watching, stopWatching := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watchConnections(watching) })
	if s.cfg.Taken != nil && s.cfg.MaxAhead > 0 {
		watch.Go(func() { s.watchAhead(watching, devices) })
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
	roots, err := identity.CertPool(s.cfg.CAFile)
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

// parseBroker returns the host name that the broker's certificate must have.
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
