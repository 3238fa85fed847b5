package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Ensure creates the stream name from stream_<name>.json in files, or brings an
// existing one to what the file says. It never shrinks retention: where the
// stream keeps more than the file says, the stream's own limit stays and a
// warning names it. It waits for the server for as long as ctx lasts.
func Ensure(ctx context.Context, js jetstream.JetStream, files fs.FS, name string, log *slog.Logger) error {
	var want jetstream.StreamConfig
	if err := readJSON(files, "stream_"+name+".json", &want); err != nil {
		return err
	}
	return untilAnswered(ctx, "stream "+name, log, func(ctx context.Context) error {
		current, err := js.Stream(ctx, want.Name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			_, err = js.CreateStream(ctx, want)
			return err
		}
		if err != nil {
			return err
		}
		merged := want
		for _, limit := range keepRetention(current.CachedInfo().Config, &merged) {
			log.Warn("stream keeps more than its file says, left as it is; to shrink it use: nats stream edit", "stream", name, "limit", limit)
		}
		_, err = js.UpdateStream(ctx, merged)
		return err
	})
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

// EnsureConsumer creates or updates the durable consumer of
// consumer_<stream>_<name>.json and returns it.
func EnsureConsumer(ctx context.Context, js jetstream.JetStream, files fs.FS, streamName, name string, log *slog.Logger) (jetstream.Consumer, error) {
	var want jetstream.ConsumerConfig
	if err := readJSON(files, "consumer_"+streamName+"_"+name+".json", &want); err != nil {
		return nil, err
	}
	var consumer jetstream.Consumer
	err := untilAnswered(ctx, "consumer "+streamName+"/"+name, log, func(ctx context.Context) (err error) {
		consumer, err = js.CreateOrUpdateConsumer(ctx, streamName, want)
		return err
	})
	return consumer, err
}

// untilAnswered repeats what until it succeeds or the server refuses it for
// good; a stream that another service has yet to create is waited for.
func untilAnswered(ctx context.Context, what string, log *slog.Logger, attempt func(context.Context) error) error {
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
		log.Info("waiting for JetStream", "for", what, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
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
