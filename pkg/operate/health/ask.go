package health

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
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

// Services are the names of all that there may be.
func Services() []string {
	return []string{"bridge", "decoder", "writer", "keeper", "registrar", "health"}
}

// AskServices asks all services, each by its name, what `nats micro` asks with a verb
// such as STATS, and returns the answers of all instances by service. A question to all
// at once would let each answer as any other: by name the server lets only the service
// itself.
func AskServices(ctx context.Context, nc *nats.Conn, verb string, wait time.Duration) (map[string][][]byte, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox + ".*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	left := len(Services()) // of which nothing is known yet
	for _, name := range Services() {
		if err := nc.PublishRequest(micro.APIPrefix+"."+verb+"."+MicroPrefix+name, inbox+"."+name, nil); err != nil {
			return nil, err
		}
	}
	all := map[string][][]byte{}
	for {
		if left == 0 {
			wait = NextAnswer
		}
		bounded, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(bounded)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			left--
			continue
		case err != nil && bounded.Err() != nil:
			return all, ctx.Err()
		case err != nil:
			return nil, err
		}
		name := strings.TrimPrefix(m.Subject, inbox+".")
		if len(all[name]) == 0 {
			left--
		}
		all[name] = append(all[name], m.Data)
	}
}
