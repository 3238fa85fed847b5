package soak

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
)

// newest is the newest reading of the first controller that is committed.
type newest struct {
	mu sync.Mutex
	at time.Time // the reading's own time
}

// watch asks the database again and again.
func (n *newest) watch(ctx context.Context, connect func(context.Context) (*pgx.Conn, error), device *fleet.SensorDevice) {
	var conn *pgx.Conn
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		var err error
		if conn == nil {
			conn, err = connect(bounded)
		}
		var at time.Time
		if err == nil {
			err = conn.QueryRow(bounded, "SELECT time FROM measurement WHERE device_id = $1 AND datapoint_id = $2 ORDER BY time DESC LIMIT 1",
				device.DeviceID, device.Template.Points[0].DataPointID).Scan(&at)
		}
		cancel()
		switch {
		case err == nil:
			n.note(at)
		case !errors.Is(err, pgx.ErrNoRows) && conn != nil:
			_ = conn.Close(context.WithoutCancel(ctx))
			conn = nil
		}
		hold(ctx, 20*time.Millisecond)
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (n *newest) note(at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.After(n.at) {
		n.at = at
	}
}

// lag is how old the newest committed reading is.
func (n *newest) lag() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.at)
}

// newRow is what moves waits for.
const newRow = "a new row is committed"

// moves waits until a reading is committed that was taken after the given time.
func (n *newest) moves(ctx context.Context, after time.Time, limit time.Duration) error {
	return within(ctx, limit, newRow, func(context.Context) bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.at.After(after)
	})
}
