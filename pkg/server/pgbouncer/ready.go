package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const (
	pollInterval = 5 * time.Millisecond
	// askTimeout bounds one try: a program that took our port may never answer.
	askTimeout = 2 * time.Second
)

// await returns once the pooler answers its own user. Whether PostgreSQL answers
// is not asked: the pooler serves without it too, and has its clients wait.
func (s *starter) await(ctx context.Context, p *Pooler) error {
	for {
		err := s.ask(ctx, p)
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return p.exited()
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to serve: %w", errors.Join(ctx.Err(), err))
		case <-time.After(pollInterval):
		}
	}
}

// ask looks at the console, which no other server has that may have our port.
func (s *starter) ask(ctx context.Context, p *Pooler) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := pgconn.Connect(ctx, p.ConnString(s.cfg.User, s.cfg.Password, ConsoleDatabase))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.Exec(ctx, "SHOW VERSION").Close()
}

func (p *Pooler) exited() error {
	tail := p.Tail()
	if strings.Contains(tail, "Address already in use") {
		return port.ErrTaken
	}
	return fmt.Errorf("it exited: %s", tail)
}
