package mosquitto

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// kicksAtOnce bounds the connections that Kick opens together.
const kicksAtOnce = 16

// Kick ends the sessions of controllers, with what is queued for them, by taking
// their client ids over as a user of the services' listener. A controller comes
// back at once unless the lists in force keep it out. Without a broker there is
// nothing to do.
func (g *Gate) Kick(ctx context.Context, user, password string, macs []topic.MAC) error {
	broker, runs := running(g.folder)
	if !runs {
		return nil
	}
	services, err := g.services(broker)
	if err != nil {
		return fmt.Errorf("ending sessions: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(kicksAtOnce)
	for _, mac := range macs {
		group.Go(func() error {
			if err := connect(ctx, services, client{id: mac.Dashed(), user: user, password: password}); err != nil {
				return fmt.Errorf("ending the session of %s: %w", mac.Dashed(), err)
			}
			return nil
		})
	}
	return group.Wait()
}
