package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"
)

// Client is a service's access to JetStream. It is safe for concurrent use.
type Client struct {
	nc    *nats.Conn
	js    jetstream.JetStream
	files fs.FS
	log   *slog.Logger
	gate  *semaphore.Weighted // one for each who must not be cut off, all for Reconnect
	moves sync.Mutex          // one Reconnect at a time

	mu       sync.Mutex                // guards the fields below
	lost     chan struct{}             // closed when the connection is lost, then made anew
	handover map[chan<- *move]struct{} // of each Consume
}

// NewClient returns a client on nc, which ends with nc; files holds stream_<name>.json and
// consumer_<stream>_<name>.json.
func NewClient(nc *nats.Conn, files fs.FS, log *slog.Logger) (*Client, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("opening JetStream: %w", err)
	}
	c := &Client{
		nc: nc, js: js, files: files, log: log, gate: semaphore.NewWeighted(everybody),
		lost: make(chan struct{}), handover: map[chan<- *move]struct{}{},
	}
	go c.watch(nc.StatusChanged(nats.RECONNECTING, nats.CLOSED))
	return c, nil
}

// watch tells those who wait for an answer that it will not come.
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

// Ready asks the server for a stream, and so proves that JetStream answers.
func (c *Client) Ready(ctx context.Context, streamName string) error {
	if _, err := c.js.Stream(ctx, streamName); err != nil {
		return fmt.Errorf("asking JetStream for %s: %w", streamName, err)
	}
	return nil
}

// Ensure creates each stream from its file, or brings an existing one to what
// the file says. It never shrinks retention: where the
// stream keeps more than the file says, the stream's own limit stays and a
// warning names it. It waits for the server for as long as ctx lasts.
func (c *Client) Ensure(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := c.ensure(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) ensure(ctx context.Context, name string) error {
	var want jetstream.StreamConfig
	if err := readJSON(c.files, "stream_"+fileName(name)+".json", &want); err != nil {
		return err
	}
	return c.untilAnswered(ctx, "stream "+name, func(ctx context.Context) error {
		current, err := c.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = c.js.CreateStream(ctx, want)
			return err
		}
		if err != nil {
			return err
		}
		merged := want
		for _, limit := range keepRetention(current.CachedInfo().Config, &merged) {
			c.log.Warn("stream keeps more than its file says, left as it is; to shrink it use: nats stream edit", "stream", name, "limit", limit)
		}
		_, err = c.js.UpdateStream(ctx, merged)
		return err
	})
}

// Create makes a stream from its file unless it is there. One that is there and
// differs from the file stays as it is, and a warning says what an operator can do:
// Create is for who must not be able to change the stream. It waits for the server
// for as long as ctx lasts.
func (c *Client) Create(ctx context.Context, name string) error {
	var want jetstream.StreamConfig
	file := "stream_" + fileName(name) + ".json"
	if err := readJSON(c.files, file, &want); err != nil {
		return err
	}
	return c.untilAnswered(ctx, "stream "+name, func(ctx context.Context) error {
		current, err := c.js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = c.js.CreateStream(ctx, want)
		} else if err == nil && !agrees(current.CachedInfo().Config, want) {
			c.log.Warn("stream differs from its file, left as it is; to change it use, as operator: nats stream edit --config", "stream", name, "file", "nats/"+file)
		}
		return err
	})
}

// agrees tells whether a stream has everything that want sets. What want leaves open
// the server has filled in.
func agrees(current, want jetstream.StreamConfig) bool {
	has := settings(current)
	for name, value := range settings(want) {
		if !reflect.DeepEqual(value, has[name]) {
			return false
		}
	}
	return true
}

// settings are those of a stream by their names, without what is not set.
func settings(c jetstream.StreamConfig) (all map[string]any) {
	if text, err := json.Marshal(c); err == nil { // it was JSON before
		_ = json.Unmarshal(text, &all)
	}
	return all
}

// keepRetention raises the limits of want to those of current, and names them.
func keepRetention(current jetstream.StreamConfig, want *jetstream.StreamConfig) (kept []string) {
	keep := func(name string, current int64, want *int64) {
		if *want > 0 && (current <= 0 || current > *want) { // 0 and -1 mean unlimited
			*want = current
			kept = append(kept, name)
		}
	}
	age := int64(want.MaxAge)
	keep("max_age", int64(current.MaxAge), &age)
	want.MaxAge = time.Duration(age)
	keep("max_bytes", current.MaxBytes, &want.MaxBytes)
	keep("max_msgs", current.MaxMsgs, &want.MaxMsgs)
	keep("max_msgs_per_subject", current.MaxMsgsPerSubject, &want.MaxMsgsPerSubject)
	return kept
}

// Consumer creates or updates the durable consumer name of a stream from its
// file and returns it.
func (c *Client) Consumer(ctx context.Context, streamName, name string) (jetstream.Consumer, error) {
	var want jetstream.ConsumerConfig
	if err := readJSON(c.files, "consumer_"+fileName(streamName)+"_"+name+".json", &want); err != nil {
		return nil, err
	}
	var consumer jetstream.Consumer
	err := c.untilAnswered(ctx, "consumer "+streamName+"/"+name, func(ctx context.Context) (err error) {
		consumer, err = c.js.CreateOrUpdateConsumer(ctx, streamName, want)
		return err
	})
	return consumer, err
}

// untilAnswered repeats what until it succeeds or the server refuses it for
// good; a stream that another service has yet to create is waited for.
func (c *Client) untilAnswered(ctx context.Context, what string, attempt func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := attempt(bounded)
		cancel()
		var apiErr *jetstream.APIError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("ensuring %s: %w", what, errors.Join(ctx.Err(), err))
		case errors.As(err, &apiErr) && apiErr.Code == 400:
			return fmt.Errorf("ensuring %s: %w", what, err)
		}
		c.log.Info("waiting for JetStream", "for", what, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// fileName is a stream's name in a file's: in lower case, and that of the
// bucket for the stream behind a key-value bucket.
func fileName(streamName string) string {
	return strings.ToLower(strings.TrimPrefix(streamName, "KV_"))
}

func readJSON(files fs.FS, name string, v any) error {
	data, err := fs.ReadFile(files, name)
	if err != nil {
		return fmt.Errorf("reading definition: %w", err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading definition %s: %w", name, err)
	}
	return nil
}
