package health

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// NextAnswer is how long Ask waits for each answer after the first.
const NextAnswer = 100 * time.Millisecond

// Ask gathers the answers of all instances: as many as there should be, or if that
// is not known (0) as many as come. It waits up to wait for the first one.
func Ask(ctx context.Context, nc *nats.Conn, subject string, instances int, wait time.Duration) ([][]byte, error) {
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, err
	}
	var all [][]byte
	for ; instances == 0 || len(all) < instances; wait = NextAnswer {
		bounded, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(bounded)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders), err != nil && bounded.Err() != nil:
			return all, ctx.Err()
		case err != nil:
			return nil, err
		}
		all = append(all, m.Data)
	}
	return all, nil
}
