// Package watch raises the registrar's alarms: a certificate or the revocation
// list that is about to end, two machines with one certificate, a device that has
// gone silent, one that is connected while nothing of it is stored, one whose clock
// is wrong, failed logins one after the other, somebody who guesses claiming codes,
// and a device that publishes on topics outside its own.
//
// It looks at what is there anyway and costs the way of a message nothing: the
// broker's log, by the topics below $SYS/broker/log, which never have a payload;
// the headers of LATEST once a minute; and the registry.
package watch

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// Fleet answers about the registry.
type Fleet interface {
	// Active answers which of the devices may connect.
	Active(ctx context.Context, macs []topic.MAC) ([]topic.MAC, error)
	// Expiring lists the active devices whose certificate ends before a time.
	Expiring(ctx context.Context, before time.Time) ([]registrar.Device, error)
	// Guessed answers whose claiming codes somebody guesses: details by MAC.
	Guessed(ctx context.Context) (map[string]string, error)
}

// Config says what is alarming. Its zero value is not valid; the CLI gives the
// defaults.
type Config struct {
	ExpiryWarning  time.Duration `help:"Raise an alarm this long before a device's certificate expires." env:"REGISTRAR_EXPIRY_WARNING" default:"720h" name:"expiry-warning"`
	CRLWarning     time.Duration `help:"Raise an alarm this long before the revocation list expires, which would lock out the fleet." env:"REGISTRAR_CRL_WARNING" default:"96h" name:"crl-warning"`
	SilentAfter    time.Duration `help:"Raise a silent alarm for a device that stops reporting for this long. Devices report every 30 s." env:"REGISTRAR_SILENT_AFTER" default:"5m" name:"silent-after"`
	UnheardAfter   time.Duration `help:"Raise an alarm if nothing of a connected device was stored for this long. Devices report every 30 s." env:"REGISTRAR_UNHEARD_AFTER" default:"90s" name:"unheard-after"`
	Takeovers      int           `help:"Number of session takeovers with one certificate, within the window, that indicates a cloned key." env:"REGISTRAR_TAKEOVERS" default:"3" name:"takeovers"`
	TakeoverWindow time.Duration `help:"Window for session takeovers." env:"REGISTRAR_TAKEOVER_WINDOW" default:"5m" name:"takeover-window"`
	FailedLogins   int           `help:"Number of refused connections, within the window, that raises an alarm." env:"REGISTRAR_FAILED_LOGINS" default:"10" name:"failed-logins"`
	FailedWindow   time.Duration `help:"Window for failed logins." env:"REGISTRAR_FAILED_WINDOW" default:"1m" name:"failed-window"`
	Interval       time.Duration `help:"How often alarms are evaluated." env:"REGISTRAR_WATCH_INTERVAL" default:"1m" name:"watch-interval"`
	MQTTURL        string        `help:"MQTT broker whose log is watched, as user registrar." env:"MQTT_URL" default:"tcp://127.0.0.1:1883" name:"mqtt-url"`
	MQTTCAFile     string        `help:"CA certificates to verify the broker with, if it uses TLS (PEM)." env:"MQTT_CA" name:"mqtt-ca" type:"path"`
}

// Validate names the first setting that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.ExpiryWarning <= 0 || c.CRLWarning <= 0:
		return errors.New("expiry-warning and crl-warning must be positive")
	case c.SilentAfter <= 0 || c.UnheardAfter <= 0 || c.Interval <= 0:
		return errors.New("silent-after, unheard-after and watch-interval must be positive")
	case c.Takeovers < 2 || c.TakeoverWindow <= 0:
		return errors.New("takeovers must be at least 2, since a device may reconnect; takeover-window must be positive")
	case c.FailedLogins < 1 || c.FailedWindow <= 0:
		return errors.New("failed-logins must be at least 1, failed-window positive")
	case c.MQTTURL == "":
		return errors.New("mqtt-url must not be empty")
	}
	return nil
}

// Watcher watches. Run it once; its methods are safe for concurrent use.
type Watcher struct {
	cfg     Config
	fleet   Fleet
	own     func() ([]*x509.Certificate, error)
	js      jetstream.JetStream
	log     *slog.Logger
	alarms  *alarm.Board
	metrics *metrics
	broker  *broker

	mu       sync.Mutex // guards the fields below
	sessions *sessions
	crl      time.Time // when it ends, zero if unknown
}

// New returns a watcher. own answers the certificates of the mesh itself: CAs and
// servers. credential is for MQTT. Metrics are in reg.
func New(cfg Config, fleet Fleet, own func() ([]*x509.Certificate, error), credential secret.Login,
	js jetstream.JetStream, reg prometheus.Registerer, log *slog.Logger,
) (*Watcher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	m := newMetrics(reg)
	publish := func(one alarm.Alarm) error { return alarm.Publish(js.Conn(), one) }
	w := &Watcher{
		cfg: cfg, fleet: fleet, own: own, js: js, log: log, metrics: m,
		alarms: newAlarms(publish, m.alarms, log), sessions: newSessions(&cfg),
	}
	var err error
	w.broker, err = newBroker(&cfg, credential, w.Observe, m, log)
	return w, err
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	defer w.broker.close()
	w.broker.open()
	ticker := time.NewTicker(w.cfg.Interval)
	defer ticker.Stop()
	silence := newSilence(w.js, w.fleet, &w.cfg)
	for {
		w.look(ctx, silence)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Ready proves that the broker sends its log.
func (w *Watcher) Ready(context.Context) error { return w.broker.ready() }

// Alarms lists what is raised now.
func (w *Watcher) Alarms() alarm.Listing { return w.alarms.Raised() }

// Observe takes a line of the broker's log. The lines at the levels that the broker
// publishes come by themselves; whoever has others brings them here.
func (w *Watcher) Observe(line string) {
	now := time.Now()
	seen := parse(line)
	if seen.kind == nothing {
		return
	}
	w.mu.Lock()
	found := w.sessions.observe(&seen, now)
	w.mu.Unlock()
	for _, f := range found {
		w.metrics.seen.WithLabelValues(f.event).Inc()
		if f.kind != "" {
			w.alarms.Raise(f.kind, f.subject, f.detail)
		}
	}
}

// RevocationList tells when the revocation list in force ends.
func (w *Watcher) RevocationList(nextUpdate time.Time) {
	w.mu.Lock()
	w.crl = nextUpdate
	w.mu.Unlock()
	w.metrics.crlEnd.Set(float64(nextUpdate.Unix()))
	w.checkRevocationList(time.Now())
}

// look does what is due every interval.
func (w *Watcher) look(ctx context.Context, silence *silence) {
	now := time.Now()
	w.mu.Lock()
	over := w.sessions.expire(now)
	present := maps.Clone(w.sessions.present)
	w.mu.Unlock()
	for _, f := range over {
		w.alarms.Clear(f.kind, f.subject)
	}
	w.checkRevocationList(now)
	if err := w.checkCertificates(ctx, now); err != nil && ctx.Err() == nil {
		w.log.Warn("expiry of certificates cannot be watched", "error", err)
	}
	if err := w.checkGuesses(ctx); err != nil && ctx.Err() == nil {
		w.log.Warn("wrong claiming codes cannot be watched", "error", err)
	}
	if err := silence.look(ctx, now, present, w.alarms); err != nil && ctx.Err() == nil {
		w.log.Warn("silence and clocks of devices cannot be watched", "error", err)
	}
	w.alarms.Resend()
}

func (w *Watcher) checkGuesses(ctx context.Context) error {
	guessed, err := w.fleet.Guessed(ctx)
	if err == nil {
		w.alarms.Keep(Guessing, guessed)
	}
	return err
}
