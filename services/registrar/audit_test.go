package registrar

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver/natsservertest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// auditPool is a registry of its own, as a role that is no superuser and owns it.
func auditPool(t *testing.T) *pgxpool.Pool {
	t.Helper()
	cluster := postgrestest.Start(t)
	admin, err := pgx.Connect(t.Context(), postgrestest.DSN(cluster, "postgres"))
	require.NoError(t, err)
	for _, statement := range []string{"CREATE ROLE owner LOGIN PASSWORD 'only for tests'", "CREATE DATABASE registry OWNER owner"} {
		_, err = admin.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, admin.Close(t.Context()))
	pool, err := pgxpool.New(context.Background(), cluster.ConnString("owner", "only for tests", "registry"))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"))
	require.NoError(t, err)
	_, err = provider.Up(t.Context())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	return pool
}

func event(detail string) Event {
	return Event{
		Time: time.Now().UTC().Truncate(time.Microsecond), Actor: "operator", Action: Issue,
		MAC: "e4fd45f654be", Serial: "0a", Detail: detail, Address: "192.0.2.1",
	}
}

func TestTrailIsOnlyAddedTo(t *testing.T) {
	t.Parallel()
	pool := auditPool(t)
	trail := NewTrail(pool)
	first, second := event("first"), event("with a \x00 and \xff")
	require.NoError(t, trail.Record(t.Context(), first, second))

	for _, statement := range []string{
		"UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "TRUNCATE audit",
		// Nor after the owner has given itself the right.
		"GRANT ALL ON audit TO CURRENT_USER; UPDATE audit SET actor = 'nobody'",
		"GRANT ALL ON audit TO CURRENT_USER; DELETE FROM audit WHERE false",
		"GRANT ALL ON audit TO CURRENT_USER; TRUNCATE audit",
	} {
		_, err := pool.Exec(t.Context(), statement)
		var refused *pgconn.PgError
		require.ErrorAs(t, err, &refused, statement)
		assert.Equal(t, "42501", refused.Code, statement)
	}
	_, err := pool.Exec(t.Context(), "TRUNCATE audit_outbox")
	require.NoError(t, err, "the control: another table of the same owner")

	second.Detail = "with a \uFFFD and \uFFFD"
	events, err := trail.Since(t.Context(), time.Time{}, "", 10)
	require.NoError(t, err)
	for i := range events {
		events[i].Time = events[i].Time.UTC()
	}
	assert.Equal(t, []Event{first, second}, events)
	events, err = trail.Since(t.Context(), time.Time{}, "000000000000", 10)
	require.NoError(t, err)
	assert.Empty(t, events)
}

// An operation's transaction that does not happen leaves no trace either.
func TestTrailWithinTransaction(t *testing.T) {
	t.Parallel()
	pool := auditPool(t)
	changed := errors.New("changed my mind")
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		require.NoError(t, addEvents(t.Context(), tx, []Event{event("never")}))
		return changed
	})
	require.ErrorIs(t, err, changed)
	events, err := NewTrail(pool).Since(t.Context(), time.Time{}, "", 10)
	require.NoError(t, err)
	assert.Empty(t, events)
}

// What is recorded while NATS is away reaches the stream later, once; what others
// put on the stream reaches the table, once.
func TestShip(t *testing.T) {
	t.Parallel()
	pool := auditPool(t)
	trail := NewTrail(pool)
	cfg := natsservertest.Config(t)
	server := natsservertest.Start(t, cfg)
	cfg.Port = server.Port()
	ctx, stop := context.WithCancel(t.Context())
	shipping := ship(ctx, t, trail, server.URL(), cfg)

	operator, err := nats.Connect(server.URL(), nats.UserInfo(natsserver.Operator, natsservertest.Password(natsserver.Operator)),
		nats.RootCAs(cfg.CAFile), nats.CustomInboxPrefix(natsserver.InboxPrefix(natsserver.Operator)), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	require.NoError(t, err)
	t.Cleanup(func() { natsservertest.Close(operator) })
	js, err := jetstream.New(operator)
	require.NoError(t, err)
	admin, err := stream.NewClient(operator, natsfiles.Files, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = admin.SetUp(t.Context(), stream.Sizes{}, false)
	require.NoError(t, err)

	require.NoError(t, trail.Record(t.Context(), event("while it is there")))
	onStream(t, js, 1)

	natsservertest.Stop(t, server)
	require.NoError(t, trail.Record(t.Context(), event("while it is away"), event("too")))
	natsservertest.Start(t, cfg)
	onStream(t, js, 3)

	rotated := event("")
	rotated.Action, rotated.Detail = RotateSecret, "nats_writer_password, version 3"
	m, err := AuditMessage(rotated)
	require.NoError(t, err)
	for _, m := range []*nats.Msg{{Subject: "f2.audit.nonsense", Data: []byte("{}")}, {Subject: "f2.audit.nonsense", Data: []byte("?")}, m, m} {
		_, err = js.PublishMsg(t.Context(), m)
		require.NoError(t, err)
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		events, err := trail.Since(t.Context(), time.Time{}, "", 10)
		require.NoError(c, err)
		require.Len(c, events, 4)
		assert.Equal(c, RotateSecret, events[3].Action)
	}, time.Minute, 50*time.Millisecond)

	var waiting int
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FROM audit_outbox").Scan(&waiting))
	assert.Zero(t, waiting)
	message, err := lastOf(t, js, "f2.audit.rotate_secret.e4fd45f654be")
	require.NoError(t, err)
	var e entry
	require.NoError(t, json.Unmarshal(message.Data, &e))
	assert.Equal(t, rotated, e.Event)
	stop()
	<-shipping
}

func ship(ctx context.Context, t *testing.T, trail *Trail, url string, cfg natsserver.Config) <-chan struct{} {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	nc, err := stream.Connect(stream.Config{URL: url, CAFile: cfg.CAFile}, natsserver.Registrar, login(log), log)
	require.NoError(t, err)
	streams, err := stream.NewClient(nc, natsfiles.Files, log)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		assert.NoError(t, trail.Ship(ctx, streams, log))
		natsservertest.Close(nc)
	}()
	return done
}

func onStream(t *testing.T, js jetstream.JetStream, n uint64) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		s, err := js.Stream(t.Context(), stream.Audit)
		require.NoError(c, err)
		assert.Equal(c, n, s.CachedInfo().State.Msgs)
	}, time.Minute, 50*time.Millisecond)
}

func lastOf(t *testing.T, js jetstream.JetStream, subject string) (*jetstream.RawStreamMsg, error) {
	t.Helper()
	s, err := js.Stream(t.Context(), stream.Audit)
	require.NoError(t, err)
	return s.GetLastMsgForSubject(t.Context(), subject)
}

// login is the registrar's at NATS.
func login(log *slog.Logger) secret.Login {
	return secret.Login{Store: secret.NewStore(secret.Chain{constant{}}, log), Password: "nats_registrar_password", User: natsserver.Registrar}
}

type constant struct{}

func (constant) Lookup(context.Context, string) (secret.Value, error) {
	return secret.NewValue(natsservertest.Password(natsserver.Registrar), "test", "1"), nil
}
