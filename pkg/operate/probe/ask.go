package probe

import (
	"context"
	"errors"
	"math"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

const (
	// FirstAnswer is how long a request to all instances usually waits for the first reply.
	FirstAnswer = 500 * time.Millisecond
	// NextAnswer is how long it waits for each of the others.
	NextAnswer = 100 * time.Millisecond
)

// Ask returns the replies of all instances of a service: as many as there are instances, or all
// that come if that is not known (0). It waits up to wait for the first one.
func Ask(ctx context.Context, nc *nats.Conn, subject string, instances int, wait time.Duration) ([][]byte, error) {
	const name = "instances"
	if instances == 0 {
		instances = math.MaxInt
	}
	all, err := gather(ctx, nc, map[string]string{name: subject}, instances, wait)
	return all[name], err
}

// ServiceNames are the names of all services that there may be.
func ServiceNames() []string {
	return []string{"bridge", "decoder", "writer", "keeper", "registrar", "health", "alarm"}
}

// AskServices sends all services the request that `nats micro` sends for a verb such as STATS,
// and returns the replies of all instances by service. It sends one request to each name: the
// server routes that to the service itself. A request to all could be answered by any service
// under any name.
func AskServices(ctx context.Context, nc *nats.Conn, verb string, wait time.Duration) (map[string][][]byte, error) {
	subjects := map[string]string{}
	for _, name := range ServiceNames() {
		subjects[name] = micro.APIPrefix + "." + verb + "." + MicroPrefix + name
	}
	return gather(ctx, nc, subjects, math.MaxInt, wait)
}

// gather sends a request to each subject and returns the replies by its name, at most as many
// as most. It waits up to wait for the first reply of each, and NextAnswer for each further one.
func gather(ctx context.Context, nc *nats.Conn, subjects map[string]string, most int, wait time.Duration) (map[string][][]byte, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox + ".*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for name, subject := range subjects {
		if err := nc.PublishRequest(subject, inbox+"."+name, nil); err != nil {
			return nil, err
		}
	}
	all := map[string][][]byte{}
	unknown := len(subjects) // those with neither a reply nor the server's word that nobody listens
	for replies := 0; replies < most && (unknown > 0 || replies > 0); {
		if unknown == 0 {
			wait = NextAnswer
		}
		bounded, cancel := context.WithTimeout(ctx, wait)
		m, err := sub.NextMsgWithContext(bounded)
		cancel()
		switch {
		case errors.Is(err, nats.ErrNoResponders):
			unknown--
			continue
		case err != nil && bounded.Err() != nil:
			return all, ctx.Err()
		case err != nil:
			return nil, err
		}
		name := strings.TrimPrefix(m.Subject, inbox+".")
		if len(all[name]) == 0 {
			unknown--
		}
		all[name] = append(all[name], m.Data)
		replies++
	}
	return all, nil
}
