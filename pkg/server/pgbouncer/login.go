package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// ConsoleDatabase is the database that is PgBouncer itself.
const ConsoleDatabase = "pgbouncer"

// SetLogin has the pooler that reads the folder dir log in to PostgreSQL as another
// from now on: User or its alternate, with that password. dsn addresses its Console,
// without a user. If nothing listens there, the pooler's next start counts. After an
// error it can be called again.
func SetLogin(ctx context.Context, dir, dsn, user, password string) error {
	if err := setLogin(ctx, dir, dsn, user, password); err != nil {
		return fmt.Errorf("changing pgbouncer's login: %w", err)
	}
	return nil
}

// setLogin keeps the old login in the file until the pooler has taken the new one: so the
// file always has one that the pooler knows.
func setLogin(ctx context.Context, dir, dsn, user, password string) error {
	owner, err := lookup()
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	conf, list := filepath.Join(dir, confFile), filepath.Join(dir, userlistFile)
	text, err := account.ReadFile(conf)
	if err != nil {
		return err
	}
	logins, err := account.ReadFile(list)
	if err != nil {
		return err
	}
	own := userlist(user, password)
	if !strings.HasSuffix(string(logins), string(own)) {
		logins = append(logins, own...)
	}
	if err := owner.WriteFile(list, logins, 0o600); err != nil { // of two lines of one user the last counts
		return err
	}
	if err := owner.WriteFile(conf, []byte(withUser(string(text), user)), 0o600); err != nil {
		return err
	}
	if err := reload(ctx, dsn, logins); err != nil {
		return err
	}
	if err := owner.WriteFile(list, own, 0o600); err != nil {
		return err
	}
	return reload(ctx, dsn, own)
}

// reload has the pooler read its files, as the first of the logins that it knows. It
// returns once the pooler has read them, or if none listens.
func reload(ctx context.Context, dsn string, logins []byte) error {
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return err
	}
	refusal := errors.New(userlistFile + " is empty")
	for line := range strings.Lines(string(logins)) {
		config.User, config.Password = parseLogin(line)
		conn, err := pgconn.ConnectConfig(ctx, config)
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil
		case postgres.Refused(err):
			refusal = err
		case err != nil:
			return err
		default:
			// The console knows the simple protocol only.
			_, err = conn.Exec(ctx, "RELOAD").ReadAll()
			return errors.Join(err, conn.Close(ctx))
		}
	}
	return refusal
}
