package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// replace makes a stream anew if JetStream cannot change how it is persisted to what its
// file says: LATEST of the releases in which the server filled it. Mirrors copy its
// messages, with their times, to a stream beside it and from there to the new one. If
// that is interrupted, the next call continues. Nothing may be stored in it meanwhile.
func (c *Client) replace(ctx context.Context, file *jetstream.StreamConfig) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("replacing stream %s: %w", file.Name, err)
		}
	}()
	aside := jetstream.StreamConfig{
		Name: file.Name + "_FORMER", Description: "What " + file.Name + " held, while setup makes it anew",
		Storage: file.Storage, Compression: file.Compression,
	}
	current, err := c.find(ctx, file.Name)
	if err != nil {
		return err
	}
	if current != nil && current.Config.PersistMode != file.PersistMode {
		if err := c.mirror(ctx, file.Name, aside); err != nil {
			return err
		}
		if err := c.js.DeleteStream(ctx, file.Name); err != nil {
			return err
		}
	}
	if former, err := c.find(ctx, aside.Name); former == nil || err != nil {
		return err // nothing to replace, or it is done
	}
	// As a mirror it can have neither subjects nor batches; then it becomes a stream of
	// its own.
	mirror := *file
	mirror.Subjects, mirror.AllowAtomicPublish = nil, false
	if err := c.mirror(ctx, aside.Name, mirror); err != nil {
		return err
	}
	if _, err := c.js.UpdateStream(ctx, *file); err != nil { // it has subjects again
		return err
	}
	return c.js.DeleteStream(ctx, aside.Name)
}

// mirror makes a stream that has everything that from has, and is a mirror until it
// does. One that is no mirror any more has it.
func (c *Client) mirror(ctx context.Context, from string, to jetstream.StreamConfig) error {
	to.Mirror = &jetstream.StreamSource{Name: from}
	copied, err := c.js.CreateStream(ctx, to)
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		copied, err = c.js.Stream(ctx, to.Name)
	}
	if err != nil {
		return err
	}
	if copied.CachedInfo().Config.Mirror == nil {
		return nil
	}
	source, err := c.js.Stream(ctx, from)
	if err != nil {
		return err
	}
	want := source.CachedInfo().State
	for {
		has, err := copied.Info(ctx)
		if err != nil {
			return err
		}
		if has.State.LastSeq >= want.LastSeq && has.State.Msgs >= want.Msgs {
			to.Mirror = nil // a stream of its own
			_, err = c.js.UpdateStream(ctx, to)
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
