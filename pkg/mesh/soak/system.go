package soak

import (
	"context"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// host runs the parts of a mesh: as processes or as containers.
type host interface {
	// kill ends a part by SIGKILL, and returns when it ended. It is started again at once.
	kill(ctx context.Context, name string) (ended time.Time, err error)
	// pause stops a part as a debugger does, or lets it go on.
	pause(ctx context.Context, name string, pause bool) error
	// f2mesh runs a command of the operator.
	f2mesh(ctx context.Context, args ...string) error
	// query connects to the tables as their reader, not over a link.
	query(ctx context.Context) (*pgx.Conn, error)
	// close ends what the run has started, and deletes what it has made.
	close(ctx context.Context) error
}

// system is a whole mesh, and what a run needs to break and to judge it.
type system struct {
	host

	cfg        *Config
	log        *slog.Logger
	folder     string             // of the run, deleted at its end
	breakable  []string           // parts that can be killed and paused alone, without the broker
	fleet      []fleet.Controller // those that send, then the spares
	devices    string             // directory of their certificates
	caFile     string
	commandMax time.Duration // a command is older when it is carried out only if the mesh breaks its promise
	links      map[string]*link
	spares     []*controller
	js         jetstream.JetStream
	closeJS    func()
}

// connect connects to the streams as the operator, and waits for them, no longer than limit.
func (s *system) connect(ctx context.Context, url string, secrets secret.Source, limit time.Duration) error {
	if s.js == nil {
		silent := slog.New(slog.DiscardHandler)
		store := secret.NewStore(secret.Chain{secrets}, silent)
		nc, err := stream.Connect(stream.Config{URL: url, CAFile: s.caFile}, "operator", mesh.NatsCredential(store, "operator"), silent)
		if err != nil {
			return err
		}
		s.closeJS = nc.Close
		if s.js, err = jetstream.New(nc); err != nil {
			return err
		}
	}
	return within(ctx, limit, "NATS has its streams", func(ctx context.Context) bool {
		_, err := s.js.Consumer(ctx, "DECODED", "writer")
		return err == nil
	})
}

// openLink puts a link in front of an address.
func (s *system) openLink(name, address string) error {
	l, err := newLink(name, address, s.log)
	if err != nil {
		return err
	}
	s.links[name] = l
	return nil
}

// controllersLink is the link between the controllers and the broker.
const controllersLink = "controllers-mosquitto"

// usedLinks are those over which something flows.
func (s *system) usedLinks() (names []string) {
	for _, name := range []string{
		controllersLink, "bridge-mosquitto", "bridge-nats", "decoder-nats", "decoder-postgres", "decoder-pgbouncer",
		"writer-nats", "writer-postgres", "writer-pgbouncer", "keeper-nats", "registrar-nats",
		"bridge-vault", "decoder-vault", "writer-vault",
	} {
		if s.links[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

// disconnect ends the links and the connection to the streams.
func (s *system) disconnect() {
	if s.closeJS != nil {
		s.closeJS()
	}
	for _, l := range s.links {
		l.close()
	}
}
