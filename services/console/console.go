// Package console is the web console: what people look at in a browser. The health
// service's listener serves it. It reads streams as the NATS user console, and the
// databases as their reader; it stores nothing. While nobody is signed in it reads nothing.
package console

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Config of the console. Without a database of readings there is none.
type Config struct {
	Readings string `help:"Database of readings, without a password. Empty: no console." env:"CONSOLE_READINGS_DSN" default:"" name:"readings-dsn"`
	Metadata string `help:"Database of the fleet's metadata, without a password." env:"CONSOLE_METADATA_DSN" default:"" name:"metadata-dsn"`
	Registry string `help:"Database of registered controllers, without a password." env:"CONSOLE_REGISTRY_DSN" default:"" name:"registry-dsn"`
	Access   string `help:"File that says who may sign in, and for what (access.yaml). Without it only admin may, with the password of the health API." env:"CONSOLE_ACCESS" default:"" type:"path" name:"access"`
	Zone     string `help:"Time zone of device timestamps without an offset (IANA name)." env:"FLEET_ZONE" default:"UTC" name:"zone"`
	Schema   string `help:"Schema of the metadata." env:"METADATA_SCHEMA" default:"fleet" name:"metadata-schema"`

	Idle     time.Duration `help:"A session that asks for no page for this long ends." env:"CONSOLE_SESSION_IDLE" default:"1h" name:"session-idle"`
	Lifetime time.Duration `help:"Maximum duration of a session." env:"CONSOLE_SESSION_LIFETIME" default:"12h" name:"session-lifetime"`
}

// Validate names the first setting that cannot work. The databases are Open's to look for.
func (c *Config) Validate() error {
	if c.Idle <= 0 || c.Lifetime < c.Idle {
		return errors.New("session-idle must be positive, and at most session-lifetime")
	}
	return nil
}

// Sources are what the console reads.
type Sources struct {
	Streams                      *stream.Client // of NATS user console
	Readings, Metadata, Registry *pgxpool.Pool  // of the reader
	// Password returns a secret, to compare with what somebody enters.
	Password func(ctx context.Context, secret string) (string, error)
	// Decoder decodes refused messages anew, with the metadata of now.
	Decoder func() (replay.MetadataDecoder, error)
	// Close ends the connections above.
	Close func()
}

// Console is the web console; run it once. nil is none.
type Console struct {
	cfg      Config
	from     Sources
	log      *slog.Logger
	pages    map[string]*template.Template
	access   *access.LivePolicy
	sessions *sessions
	attempts *web.Buckets // of signing in, by source
	live     *live
	fleet    *fleet
	alarms   alarmStates
	mux      http.Handler

	status func() ([]byte, error) // as GET /status answers; set by Run
	wrong  func(address string)   // is told of each wrong password; set by Run
}

// New returns a console.
func New(cfg Config, from Sources, log *slog.Logger) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	pages, err := parsePages()
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	file, err := access.Open(cfg.Access, log)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	c := &Console{
		cfg: cfg, from: from, log: log, pages: pages, access: file,
		sessions: newSessions(cfg.Idle, cfg.Lifetime), attempts: web.NewBuckets(attemptsPerSecond, attemptsAtOnce),
		live:   newLive(),
		status: func() ([]byte, error) { return nil, errors.New("the mesh was not checked yet") },
		wrong:  func(string) {},
	}
	c.fleet = newFleet(from, cfg.Schema, c.live, log)
	c.mux = c.handler()
	return c, nil
}

// Off reports whether there is no console.
func (c *Console) Off() bool { return c == nil }

// ServeHTTP serves everything of the console. Who is not signed in gets the sign-in page.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// Run prepares what the pages show, until ctx ends. Call it before the first request is
// served. status returns what GET /status answers; wrong is told of each wrong password.
func (c *Console) Run(ctx context.Context, status func() ([]byte, error), wrong func(address string)) error {
	c.status, c.wrong = status, wrong
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { c.fleet.run(ctx); return nil })
	group.Go(func() error { c.tick(ctx); return nil })
	err := group.Wait()
	c.from.Close()
	return err
}

// tick tells the browsers each second of what changed at the mesh as a whole.
func (c *Console) tick(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var seen time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.sessions.forget(time.Now())
		if c.live.watched(meshTopic) == 0 {
			continue
		}
		c.live.tell(meshTopic, "rate", update{})
		if s, err := c.meshStatus(); err == nil && !s.Time.Equal(seen) {
			seen = s.Time
			c.live.tell(meshTopic, "mesh", update{})
		}
	}
}
