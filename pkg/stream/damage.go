package stream

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

// If its files are damaged, nats-server cuts RAW off at the damage, and gives the sequences
// behind it to new messages. But a sequence of RAW is a message's identity: the tables
// would refuse the rows of the new message as those of the old one. So RAW is filled up
// with placeholders to where it ended before.

// placeholder is the subject of a message that only takes up a sequence.
const placeholder = "f2.raw.lost"

const (
	// placesRead is how many of the last messages of a stream are read for their places in RAW.
	placesRead = 2000
	// maxLost bounds what is filled up: far more than one file of a stream holds.
	maxLost = 1 << 20
)

// continueRaw lets RAW continue after the highest place that a stored outcome has, if it
// ends before that.
func (c *Client) continueRaw(ctx context.Context, dryRun bool) (changes []string, err error) {
	raw, err := c.find(ctx, Raw)
	if err != nil || raw == nil || raw.Config.Mirror != nil || len(raw.Config.Sources) > 0 {
		return nil, err
	}
	highest, err := c.highestPlace(ctx, Incarnation(raw))
	last := raw.State.LastSeq
	if err != nil || highest <= last {
		return nil, err
	}
	changes = []string{fmt.Sprintf("stream RAW: ends at message %d, but message %d of it was decoded: its end was lost; continued after that: docs/runbooks/StreamDamaged.md", last, highest)}
	if dryRun {
		return changes, nil
	}
	if err := c.fillRaw(ctx, last, highest); err != nil {
		return nil, err
	}
	s, err := c.js.Stream(ctx, Raw)
	if err == nil {
		err = s.Purge(ctx, jetstream.WithPurgeSubject(placeholder))
	}
	if err != nil {
		return nil, fmt.Errorf("removing placeholders from RAW: %w", err)
	}
	return changes, nil
}

// fillRaw stores placeholders after last, up to and with the sequence to.
func (c *Client) fillRaw(ctx context.Context, last, to uint64) error {
	if to-last > maxLost {
		return fmt.Errorf("RAW ends at message %d and ended at %d before: too many are missing: docs/runbooks/StreamDamaged.md", last, to)
	}
	c.log.Error("RAW has lost its end: its files are damaged", "ends_at", last, "ended_at", to)
	placeholders := make([]*nats.Msg, to-last)
	for i := range placeholders {
		placeholders[i] = &nats.Msg{Subject: placeholder, Header: nats.Header{}}
	}
	_, err := c.NewAppender(Raw, last).Append(ctx, placeholders)
	return err
}

// highestPlace returns the highest sequence of RAW among the last outcomes, 0 if there are none.
func (c *Client) highestPlace(ctx context.Context, incarnation uint64) (highest uint64, err error) {
	for _, name := range []string{Decoded, Parked, DeadLetter} {
		info, err := c.find(ctx, name)
		if err != nil {
			return 0, err
		}
		if info == nil {
			continue
		}
		last := info.State.LastSeq
		err = c.Range(ctx, name, last-min(last, placesRead)+1, last, func(m *jetstream.RawStreamMsg) {
			if id := placeOf(m); id.Incarnation() == incarnation {
				highest = max(highest, id.Sequence())
			}
		})
		if err != nil {
			return 0, err
		}
	}
	return highest, nil
}

// placeOf returns the identity that an outcome has in its headers or its body, or zero.
func placeOf(m *jetstream.RawStreamMsg) (id event.ID) {
	if text := m.Header.Get(event.HeaderID); text != "" {
		id, _ = event.ParseID(text)
		return id
	}
	var d event.Decoded
	if event.ParseDecoded(m.Subject, m.Data, &d) != nil {
		return event.ID{}
	}
	return d.ID
}
