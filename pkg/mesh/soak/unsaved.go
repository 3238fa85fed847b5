package soak

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

// killUnsaved kills the broker when the bridge has taken messages that the broker queued,
// before the broker has saved that. Then the broker gives them out again as new ones, without DUP.
// away is how long the bridge is away before. It returns when the broker ended.
func (s *system) killUnsaved(ctx context.Context, away time.Duration) (ended time.Time, err error) {
	l := s.links["bridge-mosquitto"]
	l.set(condition{blocked: true})
	l.cut()
	hold(ctx, away) // the broker queues, and saves
	stored := func(ctx context.Context) (uint64, error) {
		raw, err := s.js.Stream(ctx, "RAW")
		if err != nil {
			return 0, fmt.Errorf("asking for stream RAW: %w", err)
		}
		return raw.CachedInfo().State.LastSeq, nil
	}
	before, err := stored(ctx)
	l.set(condition{})
	if err == nil {
		err = within(ctx, time.Minute, "the bridge has taken what was queued", func(ctx context.Context) bool {
			now, err := stored(ctx)
			return err == nil && now > before
		})
	}
	ended, killErr := s.kill(ctx, local.PartMosquitto)
	return ended, errors.Join(err, killErr)
}
