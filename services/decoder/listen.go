package decoder

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

// channel is where the metadata's trigger notifies: the payload is the MAC
// address of the controller concerned, or "*".
const channel = "f2mesh_metadata"

// listen drops cached metadata as soon as PostgreSQL says that it has changed,
// until ctx ends. It needs a connection of its own: LISTEN does not go through
// a pooler. Whatever changed while it was not listening is found by expiring
// the whole cache at every connect.
func listen(ctx context.Context, config *pgx.ConnConfig, password func(context.Context) (string, error), c *cache, log *slog.Logger) {
	for ctx.Err() == nil {
		err := listenOnce(ctx, config, password, c, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("metadata notifications interrupted, will listen again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func listenOnce(ctx context.Context, config *pgx.ConnConfig, password func(context.Context) (string, error), c *cache, log *slog.Logger) error {
	config = config.Copy()
	var err error
	if config.Password, err = password(ctx); err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting to listen: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	c.expire()
	log.Info("listening for metadata changes", "channel", channel)
	for {
		n, err := conn.WaitForNotification(ctx)
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
