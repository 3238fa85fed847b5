package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/server/port"
)

// invalidPassword is SQLSTATE 28P01.
const invalidPassword = "28P01"

// await returns once the superuser can log in.
func (s *starter) await(ctx context.Context, c *Cluster) error {
	address := c.ConnString(s.cfg.Superuser, s.cfg.SuperuserPassword, "postgres")
	for {
		err := logIn(ctx, address)
		if err == nil {
			return nil
		}
		if refusal := new(pgconn.PgError); errors.As(err, &refusal) && refusal.Code == invalidPassword {
			return s.refused(c)
		}
		select {
		case <-c.Done():
			return c.exited()
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to serve: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

func logIn(ctx context.Context, address string) error {
	conn, err := pgconn.Connect(ctx, address)
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// refused tells another server that took our port, which makes ours exit, from
// ours that was made with another password.
func (s *starter) refused(c *Cluster) error {
	const exitTime = 500 * time.Millisecond
	select {
	case <-c.Done():
		return c.exited()
	case <-time.After(exitTime):
		return errors.New("the superuser's password is not the one that the cluster was made with")
	}
}

func (c *Cluster) exited() error {
	tail := c.Tail()
	if strings.Contains(tail, "Address already in use") || strings.Contains(tail, "could not create any TCP/IP sockets") {
		return port.ErrTaken
	}
	return fmt.Errorf("it exited: %s", tail)
}
