package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Admin changes the roles of a running server, which need not be ours. It connects
// for each call. It is safe for concurrent use, also by several processes.
type Admin struct {
	// DSN addresses a database to which all roles may connect.
	DSN string
	// Superuser answers a superuser, or its alternate, and the password.
	Superuser func(context.Context) (user, password string, err error)
}

// SetPassword is the package's function of that name.
func (a Admin) SetPassword(ctx context.Context, role, password string) error {
	conn, err := a.superuser(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return SetPassword(ctx, conn, role, password)
}

// Sessions is the package's function of that name.
func (a Admin) Sessions(ctx context.Context, role string) (int, error) {
	conn, err := a.superuser(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return Sessions(ctx, conn, role)
}

// LogIn tells whether the server lets a role in.
func (a Admin) LogIn(ctx context.Context, role, password string) (bool, error) {
	conn, err := a.connect(ctx, role, password)
	if Refused(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("logging in to PostgreSQL as %s: %w", role, err)
	}
	return true, conn.Close(ctx)
}

func (a Admin) superuser(ctx context.Context) (*pgx.Conn, error) {
	user, password, err := a.Superuser(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := a.connect(ctx, user, password)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL as %s: %w", user, err)
	}
	return conn, nil
}

func (a Admin) connect(ctx context.Context, user, password string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(a.DSN)
	if err != nil {
		return nil, err
	}
	config.User, config.Password = user, password
	return pgx.ConnectConfig(ctx, config)
}
