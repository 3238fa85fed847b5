package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Services open streams and consumers, and wait for them: setup makes them.

// missing is what a log line says of a stream or consumer that is not there.
const missing = "does not exist yet: `f2mesh up`, the containers' provision job and `f2mesh setup --streams` create it"

// sayAgain is how often a wait is logged.
const sayAgain = time.Minute

// Wait returns when the streams are there. It waits for as long as ctx lasts.
func (c *Client) Wait(ctx context.Context, names ...string) error {
	for _, name := range names {
		err := c.untilAnswered(ctx, "stream "+name, func(ctx context.Context) error {
			_, err := c.js.Stream(ctx, name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Open returns the durable consumer name of a stream. It waits until it is there, for
// as long as ctx lasts.
func (c *Client) Open(ctx context.Context, streamName, name string) (consumer jetstream.Consumer, err error) {
	err = c.untilAnswered(ctx, "consumer "+name+" of "+streamName, func(ctx context.Context) (err error) {
		consumer, err = c.js.Consumer(ctx, streamName, name)
		return err
	})
	return consumer, err
}

// untilAnswered repeats what until it succeeds or the server refuses it for good; a
// stream or consumer that does not exist yet is waited for, and logged at once and then
// every minute.
func (c *Client) untilAnswered(ctx context.Context, what string, attempt func(context.Context) error) error {
	var said time.Time
	const first = 100 * time.Millisecond
	for wait := first; ; wait = min(2*wait, 2*time.Second) {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := attempt(bounded)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for %s: %w", what, errors.Join(ctx.Err(), err))
		case final(err):
			return fmt.Errorf("asking JetStream for %s: %w", what, explainReplicas(err))
		}
		if time.Since(said) >= sayAgain {
			said = time.Now()
			if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
				c.log.Warn("waiting for JetStream", "for", what, "because", missing)
			} else {
				c.log.Warn("waiting for JetStream", "for", what, "error", err)
			}
		}
		if c.pause(ctx, wait) {
			wait = first / 2
		}
	}
}

// Error codes of the server: when max_file_store is spent, when a server that is in no
// cluster is asked for replicas, and when a cluster has too few servers for them now.
const (
	storageExceeded jetstream.ErrorCode = 10047
	noCluster       jetstream.ErrorCode = 10074
	tooFewServers   jetstream.ErrorCode = 10005
)

// final reports whether the server would return the same error again.
func final(err error) bool {
	var apiErr *jetstream.APIError
	if !errors.As(err, &apiErr) || apiErr.ErrorCode == tooFewServers { // one may be starting
		return false
	}
	return apiErr.Code == 400 || apiErr.ErrorCode == storageExceeded || apiErr.ErrorCode == noCluster
}

// explainReplicas says what to do where the servers are too few.
func explainReplicas(err error) error {
	var apiErr *jetstream.APIError
	if !errors.As(err, &apiErr) || apiErr.ErrorCode != noCluster {
		return err
	}
	return fmt.Errorf("%w: this NATS server is in no cluster; set one up (docs/scale.md), or set NATS_REPLICAS to 1", err)
}
