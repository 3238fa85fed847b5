package registrar

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// lockKey is the advisory lock of all operations. Any number will do if it is
// always the same.
const lockKey = 0x66326465766963

// followTimeout bounds what follows a commit, which goes on although the caller has
// given up: an operation is not left half done for impatience.
const followTimeout = 10 * time.Minute

// change is one operation under way.
type change struct {
	*Registrar
	tx          pgx.Tx
	origin      Origin
	now         time.Time
	authorities identity.Authorities

	events []Event
	staged []string // names in the staging folder
}

func (c *change) record(action Action, mac topic.MAC, serial, detail string) {
	c.events = append(c.events, Event{
		Time: c.now, Actor: c.origin.Actor, Action: action, MAC: mac, Serial: serial, Detail: detail, Address: c.origin.Address,
	})
}

// change carries out one operation: decide changes the registry and stages bundles,
// and all else follows. Until the commit nothing has happened; from then on it has,
// and whoever comes next finishes it if we do not.
func (r *Registrar) change(ctx context.Context, origin Origin, decide func(context.Context, *change) error) error {
	return r.alone(ctx, func(conn *pgxpool.Conn) error {
		if err := r.settleBundles(ctx, conn); err != nil {
			return err
		}
		c := &change{Registrar: r, origin: origin, now: time.Now().UTC().Truncate(time.Microsecond)}
		lists, err := c.commit(ctx, conn, decide)
		if err != nil {
			c.unstage()
			return err
		}
		r.reached("committed")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), followTimeout)
		defer cancel()
		if err := r.follow(ctx, conn, lists); err != nil {
			return fmt.Errorf("%w; the registry has it, and the next operation finishes it", err)
		}
		return nil
	})
}

// commit answers the broker's lists that follow from what it committed.
func (c *change) commit(ctx context.Context, conn *pgxpool.Conn, decide func(context.Context, *change) error) (lists *mosquitto.CheckedLists, err error) {
	if c.authorities, err = c.cfg.Issuer.Authorities(ctx); err != nil {
		return nil, err
	}
	if c.tx, err = conn.Begin(ctx); err != nil {
		return nil, fmt.Errorf("changing the registry: %w", err)
	}
	defer func() { _ = c.tx.Rollback(context.WithoutCancel(ctx)) }() // nothing once committed
	if err := decide(ctx, c); err != nil {
		return nil, err
	}
	if lists, err = c.prepareLists(ctx); err != nil {
		return nil, err
	}
	if err := addEvents(ctx, c.tx, c.events); err != nil {
		return nil, fmt.Errorf("recording in the audit trail: %w", err)
	}
	c.reached("decided")
	if err := c.tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("changing the registry: %w", err)
	}
	return lists, nil
}

// follow does what follows from the registry: bundles, lists, sessions.
func (r *Registrar) follow(ctx context.Context, conn *pgxpool.Conn, lists *mosquitto.CheckedLists) error {
	if err := r.settleBundles(ctx, conn); err != nil {
		return err
	}
	r.reached("placed")
	if err := lists.Commit(ctx); err != nil {
		return err
	}
	r.reached("in force")
	return r.evict(ctx, conn)
}

// evict ends the sessions of devices that the lists in force keep out, or whose
// certificate they do.
func (r *Registrar) evict(ctx context.Context, conn *pgxpool.Conn) error {
	all, err := macs(ctx, conn, "SELECT mac FROM eviction")
	if err != nil || len(all) == 0 {
		return err
	}
	user, password, err := r.cfg.Credential(ctx)
	if err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	if err := r.cfg.Gate.Kick(ctx, user, password, all); err != nil {
		return err
	}
	r.reached("kicked")
	if _, err := conn.Exec(ctx, "DELETE FROM eviction WHERE mac = ANY($1)", all); err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	return nil
}

// alone keeps the operations of all processes apart. The lock ends with the
// connection, should this process die.
func (r *Registrar) alone(ctx context.Context, do func(*pgxpool.Conn) error) error {
	conn, err := r.cfg.Pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the registry: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", lockKey); err != nil {
		return fmt.Errorf("waiting for other operations: %w", err)
	}
	defer func() {
		if _, err := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", lockKey); err != nil {
			_ = conn.Conn().Close(context.WithoutCancel(ctx)) // ends it too
		}
	}()
	return do(conn)
}
