package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

// Client is a service's access to JetStream. It is safe for concurrent use.
type Client struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	files    fs.FS
	log      *slog.Logger
	pullWait time.Duration       // see defaultPullWait; tests change it
	gate     *semaphore.Weighted // one for each who must not be cut off, all for Reconnect
	moves    sync.Mutex          // one Reconnect at a time

	mu       sync.Mutex                // guards the fields below
	lost     chan struct{}             // closed when the connection is lost, then recreated
	handover map[chan<- *move]struct{} // of each Consume
}

// NewClient returns a client on nc, with which it ends; files holds stream_<name>.json and
// consumer_<stream>_<name>.json.
func NewClient(nc *nats.Conn, files fs.FS, log *slog.Logger) (*Client, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	c := &Client{
		nc: nc, js: js, files: files, log: log, pullWait: defaultPullWait, gate: semaphore.NewWeighted(everybody),
		lost: make(chan struct{}), handover: map[chan<- *move]struct{}{},
	}
	go c.watch(nc.StatusChanged(nats.RECONNECTING, nats.CLOSED))
	return c, nil
}

// watch cancels waits for responses when the connection is lost.
func (c *Client) watch(changes chan nats.Status) {
	defer c.nc.RemoveStatusListener(changes)
	for status := range changes {
		c.mu.Lock()
		close(c.lost)
		c.lost = make(chan struct{})
		c.mu.Unlock()
		if status == nats.CLOSED {
			return
		}
	}
}

// whileConnected returns a context that ends after timeout or when the
// connection is lost.
func (c *Client) whileConnected(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	c.mu.Lock()
	lost := c.lost
	c.mu.Unlock()
	go func() {
		select {
		case <-lost:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// JetStream is the API beneath.
func (c *Client) JetStream() jetstream.JetStream { return c.js }

// Last returns the last message of a subject. It waits for the server for as long
// as ctx lasts, and returns jetstream.ErrMsgNotFound where there is none.
func (c *Client) Last(ctx context.Context, streamName, subject string) (last *jetstream.RawStreamMsg, err error) {
	err = c.untilAnswered(ctx, "the last message of "+subject, func(ctx context.Context) error {
		s, err := c.js.Stream(ctx, streamName)
		if err != nil {
			return err
		}
		if last, err = s.GetLastMsgForSubject(ctx, subject); errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	if err == nil && last == nil {
		err = jetstream.ErrMsgNotFound
	}
	return last, err
}

// Ready asks the server for a stream, and so proves that JetStream responds.
func (c *Client) Ready(ctx context.Context, streamName string) error {
	_, err := c.Info(ctx, streamName)
	return err
}
