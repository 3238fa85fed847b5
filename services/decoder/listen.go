package decoder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// channel is the channel of the metadata's trigger. The payload is the MAC address of the
// changed controller, or "*".
const channel = "f2mesh_metadata"

// listen drops cached metadata as soon as PostgreSQL reports a change, until ctx ends. It
// needs its own connection: LISTEN does not work through a pooler. It expires the whole cache
// at every connect, because of changes while it was not listening.
func listen(ctx context.Context, pool *database.Pool, c *cache, log *slog.Logger) {
	for ctx.Err() == nil {
		err := listenOnce(ctx, pool, c, log)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errChanged) {
			continue // at once
		}
		log.Warn("listening for metadata changes failed, will retry", "error", err)
		select {
		case <-ctx.Done():
		case <-pool.Changed():
		case <-time.After(time.Second):
		}
	}
}

// errChanged ends a connection after its credential has changed.
var errChanged = errors.New("the credential has changed")

func listenOnce(ctx context.Context, pool *database.Pool, c *cache, log *slog.Logger) error {
	conn, err := pool.Dedicated(ctx)
	if err != nil {
		return fmt.Errorf("connecting to listen: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	c.expire()
	log.Info("listening for metadata changes", "channel", channel)
	waiting, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-pool.Changed():
			stop(errChanged)
		case <-waiting.Done():
		}
	}()
	for {
		n, err := conn.WaitForNotification(waiting)
		if errors.Is(context.Cause(waiting), errChanged) {
			return errChanged
		}
		if err != nil {
			return fmt.Errorf("waiting for notifications: %w", err)
		}
		if mac, err := topic.ParseMAC(n.Payload); err == nil {
			c.forget(mac)
		} else {
			c.expire()
		}
	}
}
