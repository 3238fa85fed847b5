package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"github.com/jackc/pgx/v5/pgxpool"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// natsUser is whom the console reads streams as.
const natsUser = "console"

// Bounds of what the console asks of a database at once, and how long a query may take there.
const (
	maxConns         = "4"
	statementTimeout = "8000" // ms
)

// Open returns a console in the process of a service, with logins of its own; nil where cfg
// names no database. decoder makes what decodes refused messages, from the metadata.
func Open(cfg Config, h *service.Host, decoder func(metadata *pgxpool.Pool) (replay.MetadataDecoder, error), log *slog.Logger) (*Console, error) {
	if cfg.Readings == "" {
		return nil, nil
	}
	if cfg.Metadata == "" || cfg.Registry == "" || cfg.Schema == "" {
		return nil, errors.New("console: readings-dsn needs metadata-dsn, registry-dsn and metadata-schema")
	}
	log = log.With("part", "console")
	login := mesh.NatsCredential(h.Secrets, natsUser)
	nc, err := stream.Connect(h.Nats, natsUser, login, log)
	if err != nil {
		return nil, err
	}
	var pools []*database.Pool
	ctx, cancel := context.WithCancel(context.Background())
	end := func() {
		cancel()
		nc.Close()
		for _, p := range pools {
			p.Close()
		}
	}
	streams, err := stream.NewClient(nc, natsfiles.Files, log)
	if err != nil {
		end()
		return nil, err
	}
	login.Notify(func() {
		if err := streams.Reconnect(ctx); err != nil && ctx.Err() == nil {
			log.Warn("the console cannot use its changed NATS credential", "error", err)
		}
	})
	from := Sources{Streams: streams, Close: end}
	for _, one := range []struct {
		dsn string
		to  **pgxpool.Pool
	}{{cfg.Readings, &from.Readings}, {cfg.Metadata, &from.Metadata}, {cfg.Registry, &from.Registry}} {
		pool, err := openReader(one.dsn, secret.Login{Store: h.Secrets, Password: mesh.SecretReader, User: mesh.RoleReader})
		if err != nil {
			end()
			return nil, err
		}
		pools = append(pools, pool)
		*one.to = pool.Pool
	}
	from.Password = func(ctx context.Context, name string) (string, error) {
		v, err := h.Secrets.Get(ctx, name)
		return v.Reveal(), err
	}
	from.Decoder = func() (replay.MetadataDecoder, error) { return decoder(from.Metadata) }
	c, err := New(cfg, from, log)
	if err != nil {
		end()
		return nil, err
	}
	return c, nil
}

// openReader opens a database for reading alone.
func openReader(dsn string, login secret.Login) (*database.Pool, error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, errors.New("the address of a database of the console is not a URL: postgres://host:port/database")
	}
	q := u.Query()
	q.Set("pool_max_conns", maxConns)
	q.Set("statement_timeout", statementTimeout)
	q.Set("default_transaction_read_only", "on")
	u.RawQuery = postgres.EncodeQuery(q)
	pool, err := database.Open(context.Background(), u.String(), login)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	return pool, nil
}
