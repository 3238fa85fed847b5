package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	pooledSecret    = "timescale_password"
	registrarSecret = "registry_password"
	poolerSecret    = "pgbouncer_password"
	console         = "pgbouncer" // the database that is the pooler itself
)

func poolerCheck() Check {
	return Check{
		"database-pooler", "Database Security: Access Control",
		"PgBouncer with no and a wrong password and without TLS, its console, and roles that have no business there",
		"take pgbouncer.ini as shipped, REVOKE f2mesh_pooled from roles that are named, and restart the mesh", databasePooler,
	}
}

func databasePooler(ctx context.Context, m *Mesh) Finding {
	if m.Ports.PgBouncer == 0 {
		return notChecked("this mesh runs no PgBouncer")
	}
	var problems []string
	found := m.poolerAttempts(ctx)
	if f := refused(found); f.State != OK {
		problems = append(problems, f.Seen)
	}
	problems = append(problems, m.poolerPlain(ctx)...)
	problems = append(problems, m.poolerConsole(ctx)...)
	return verdict(problems, "refused: %s, without TLS", names(found))
}

// poolerAttempts are logins with TLS that have to be refused. Each has as its
// control what the same role may: come through the pooler, or to PostgreSQL.
func (m *Mesh) poolerAttempts(ctx context.Context) []attempt {
	login := func(secret, database string, port int, password func(good string) string) func() error {
		return func() error { return m.through(ctx, secret, database, port, password) }
	}
	right := func(good string) string { return good }
	pooled := login(pooledSecret, telemetry, m.Ports.PgBouncer, right)
	all := []attempt{
		{"no password", pooled, login(pooledSecret, telemetry, m.Ports.PgBouncer, func(string) string { return "" })},
		{"wrong password", pooled, login(pooledSecret, telemetry, m.Ports.PgBouncer, func(string) string { return marker() })},
		{"a service on the console", pooled, login(pooledSecret, console, m.Ports.PgBouncer, right)},
		{
			"the registrar on the console",
			login(registrarSecret, metadata, m.Ports.Postgres, right), login(registrarSecret, console, m.Ports.PgBouncer, right),
		},
	}
	if m.Ports.Postgres == 0 {
		return all[:3] // nothing shows that the others' passwords are right
	}
	outsiders := map[string]string{registrarSecret: metadata, superuser: telemetry}
	if !m.Containers { // there it is people's only way
		outsiders["postgres_reader_password"] = telemetry
	}
	for _, secret := range slices.Sorted(maps.Keys(outsiders)) {
		database := outsiders[secret]
		all = append(all, attempt{
			"the role of " + secret,
			login(secret, database, m.postgresPort(database), right), login(secret, database, m.Ports.PgBouncer, right),
		})
	}
	return all
}

// through logs in at a port, and out.
func (m *Mesh) through(ctx context.Context, secret, database string, port int, password func(good string) string) error {
	user, good, err := m.LogIn(ctx, m.ofServer(secret, database))
	if err != nil {
		return err
	}
	conn, err := m.connectAt(ctx, port, user, password(good), database, "verify-full")
	if err == nil {
		hangUp(ctx, conn)
	}
	return err
}

// poolerPlain gives no good password away on a line that is not encrypted.
func (m *Mesh) poolerPlain(ctx context.Context) []string {
	user, _, err := m.LogIn(ctx, pooledSecret)
	if err != nil {
		return []string{err.Error()}
	}
	conn, err := m.connectAt(ctx, m.Ports.PgBouncer, user, marker(), telemetry, "disable")
	var refusal *pgconn.PgError
	switch {
	case err == nil:
		hangUp(ctx, conn)
		return []string{"let in without TLS"}
	case errors.As(err, &refusal) && strings.Contains(refusal.Message, "SSL required"):
		return nil
	}
	return []string{fmt.Sprintf("the pooler goes on without TLS: %v", err)}
}

// poolerConsole is the control of those who must not log in to the console: the pooler's
// own user can.
func (m *Mesh) poolerConsole(ctx context.Context) []string {
	user, password, err := m.LogIn(ctx, poolerSecret)
	if err != nil {
		return []string{err.Error()}
	}
	conn, err := m.connectAt(ctx, m.Ports.PgBouncer, user, password, console, "verify-full")
	if err != nil {
		return []string{fmt.Sprintf("the console cannot be tried: %v", err)}
	}
	defer hangUp(ctx, conn)
	// The console knows the simple protocol only.
	if _, err := conn.PgConn().Exec(ctx, "SHOW POOLS").ReadAll(); err != nil {
		return []string{fmt.Sprintf("the console cannot be tried: %v", err)}
	}
	return nil
}
