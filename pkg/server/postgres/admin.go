package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
)

// Admin changes a role that several running servers have, which need not be ours; all of
// them must have it. It connects for each call. It is safe for concurrent use, also by
// several processes.
//
// A call tries every server, whether or not others fail. The same call again changes those
// that failed.
type Admin []RoleServer

// RoleServer is where a role is, and who may change it.
type RoleServer struct {
	// DSN addresses a database to which all roles may connect.
	DSN string
	// Superuser returns a superuser, or its alternate, and the password.
	Superuser func(context.Context) (user, password string, err error)
}

// SetPassword is the package's function of that name, on each server.
func (a Admin) SetPassword(ctx context.Context, role, password string) error {
	return a.each(ctx, func(conn *pgx.Conn) error { return SetPassword(ctx, conn, role, password) })
}

// Sessions counts the connections that logged in as a role, to all servers together.
func (a Admin) Sessions(ctx context.Context, role string) (all int, err error) {
	err = a.each(ctx, func(conn *pgx.Conn) error {
		n, err := Sessions(ctx, conn, role)
		all += n
		return err
	})
	return all, err
}

// LogIn reports whether the servers let a role in: all of them, or none. Otherwise it
// returns rotation.ErrPartly.
func (a Admin) LogIn(ctx context.Context, role, password string) (bool, error) {
	in := 0
	for _, s := range a {
		conn, err := s.connect(ctx, role, password)
		switch {
		case Refused(err):
			continue
		case err != nil:
			return false, fmt.Errorf("logging in to PostgreSQL as %s: %w", role, err)
		}
		in++
		if err := conn.Close(ctx); err != nil {
			return false, fmt.Errorf("logging out of PostgreSQL: %w", err)
		}
	}
	if in != 0 && in != len(a) {
		return false, fmt.Errorf("logging in to PostgreSQL as %s: %w", role, rotation.ErrPartly)
	}
	return in > 0, nil
}

// each calls do with a superuser's connection to each server.
func (a Admin) each(ctx context.Context, do func(*pgx.Conn) error) error {
	var problems error
	for _, s := range a {
		conn, err := s.superuser(ctx)
		if err == nil {
			err = do(conn)
			_ = conn.Close(context.WithoutCancel(ctx))
		}
		problems = errors.Join(problems, err)
	}
	return problems
}

func (s RoleServer) superuser(ctx context.Context) (*pgx.Conn, error) {
	user, password, err := s.Superuser(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := s.connect(ctx, user, password)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL as %s: %w", user, err)
	}
	return conn, nil
}

func (s RoleServer) connect(ctx context.Context, user, password string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.DSN)
	if err != nil {
		return nil, err
	}
	config.User, config.Password = user, password
	return pgx.ConnectConfig(ctx, config)
}
