// Package database opens a service's connections to PostgreSQL with a credential
// that may change while they are in use (design 8). What is asked of the database
// is the service's business.
package database

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Pool is a pool of connections. It is safe for concurrent use.
type Pool struct {
	*pgxpool.Pool
	direct  *pgxpool.Config
	changed chan struct{} // holds one item after a change of the credential
}

// Open returns a pool on the database that dsn names, without connecting. Each
// connection logs in with the credential as it is then. After a change idle
// connections are closed and busy ones when they are released, so no query is
// cut off. A refused login is told to credential. Close ends the pool.
func Open(ctx context.Context, dsn string, credential secret.Login) (*Pool, error) {
	return OpenPooled(ctx, dsn, "", credential)
}

// OpenPooled is Open with connections that go where pooled leads: to a PgBouncer in
// transaction mode before the database of dsn. They must not keep anything in the
// session; what Dedicated opens leads to the database itself. With pooled empty it
// is Open.
func OpenPooled(ctx context.Context, dsn, pooled string, credential secret.Login) (*Pool, error) {
	direct, err := configure(dsn, credential)
	if err != nil {
		return nil, err
	}
	config := direct
	if pooled != "" {
		if config, err = configure(pooled, credential); err != nil {
			return nil, err
		}
		config.ConnConfig.DefaultQueryExecMode = pooledMode
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	p := &Pool{Pool: pool, direct: direct, changed: make(chan struct{}, 1)}
	credential.Notify(p.renew)
	return p, nil
}

// pooledMode is how statements are run where the next may meet another session.
// PgBouncer before 1.21 knows no prepared statements, pgx's default; of those without,
// this one asks PostgreSQL for the parameters' types, once for a connection, and
// sends them in binary.
const pooledMode = pgx.QueryExecModeCacheDescribe

// configure has each connection log in with the credential as it is then.
func configure(dsn string, credential secret.Login) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.ConnConfig.Tracer = refusals{credential}
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		user, password, err := credential.Get(ctx)
		if err != nil {
			return err
		}
		c.Password = password
		if user != "" {
			c.User = user
		}
		return nil
	}
	return config, nil
}

func (p *Pool) renew() {
	p.Reset()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Changed has an item after each change of the credential, for the one who holds
// a connection of Dedicated and must open another.
func (p *Pool) Changed() <-chan struct{} { return p.changed }

// Dedicated opens a connection outside the pool, past any pooler, for one who keeps
// it. Close ends it.
func (p *Pool) Dedicated(ctx context.Context) (*pgx.Conn, error) {
	config := p.direct.Copy()
	if err := config.BeforeConnect(ctx, config.ConnConfig); err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config.ConnConfig)
}

// refusals sees how logins end.
type refusals struct{ credential secret.Login }

func (refusals) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	return ctx
}

func (r refusals) TraceConnectEnd(_ context.Context, data pgx.TraceConnectEndData) {
	if postgres.Refused(data.Err) {
		r.credential.Refused()
	}
}

// TraceQueryStart and TraceQueryEnd make refusals a pgx.QueryTracer, which pgx
// insists on.
func (refusals) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (refusals) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}
