package decoder

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	// unparked is how many controllers are unparked at the same time.
	unparked = 8
	// chunk and chunkBytes limit what is read of PARKED at once.
	chunk      = 500
	chunkBytes = 1 << 20
	// askTimeout is how long one request to JetStream may take.
	askTimeout = 5 * time.Second
	// turnTimeout is how long unparking waits for the end of a batch. The batch may itself
	// wait for room in PARKED, which other controllers' unparking makes.
	turnTimeout = time.Second
	// lonely is how often unparking a controller that keeps on sending is tried before
	// batches have to wait for it.
	lonely = 3
)

// errBusy is the error of an attempt to unpark that is to be repeated soon.
var errBusy = errors.New("the batch has not ended")

// unpark decodes the parked messages of controllers whose metadata can be read again, until
// ctx ends.
func (d *Decoder) unpark(ctx context.Context) {
	slots := make(chan struct{}, unparked)
	var all sync.WaitGroup
	defer all.Wait()
	for ctx.Err() == nil {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		mac, wait := d.parking.take(time.Now())
		if mac != "" {
			all.Go(func() {
				defer func() { <-slots }()
				d.unparkOne(ctx, mac)
			})
			continue
		}
		<-slots
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-d.parking.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (d *Decoder) unparkOne(ctx context.Context, mac topic.MAC) {
	var pause time.Duration
	failed := d.parking.failed(mac) // then it was logged
	c, err := d.cache.get(ctx, mac)
	switch {
	case errors.Is(err, errAway):
		pause = time.Until(time.Unix(0, d.cache.away.Load()))
	case err == nil:
		if err = d.replay(ctx, mac, c); errors.Is(err, errBusy) {
			pause = 50 * time.Millisecond
		}
	}
	if err == nil {
		d.metrics.waiting.Set(float64(d.parking.len()))
		if failed {
			d.log.Info("metadata can be read again; the controller's parked messages were decoded", "mac", mac)
		}
		return
	}
	if ctx.Err() == nil && pause == 0 && !failed {
		d.log.Warn("a controller's messages stay parked; will read its metadata again", "mac", mac, "error", err)
	}
	d.parking.postpone(mac, time.Now(), max(pause, 0))
}

// replay decodes the controller's parked messages in order, removes them and lets newer ones
// flow again. After an error it continues where it stopped; only another process stores those
// messages again.
func (d *Decoder) replay(ctx context.Context, mac topic.MAC, c *controller) error {
	w := d.parking.place(mac)
	var own worker
	for try := 0; ; try++ {
		alone := try >= lonely // nothing is parked meanwhile
		if try == lonely {
			bounded, cancel := context.WithTimeout(ctx, turnTimeout)
			ok := d.turn.acquire(bounded)
			cancel()
			if !ok {
				return errBusy
			}
			defer d.turn.release()
		}
		mark, settled := d.parking.mark(mac)
		if err := d.replayAll(ctx, mac, w, c, &own, alone); err != nil {
			return err
		}
		removed, err := d.remove(ctx, mac, w)
		if err != nil {
			return err
		}
		if removed && settled && d.parking.leave(mac, mark) {
			return nil
		}
		if try > lonely {
			return errBusy // PARKED does not return what was just stored
		}
	}
}

// replayAll decodes all messages that PARKED has of the controller: alone, or but for the few that
// were parked meanwhile. A controller can send as fast as its messages are decoded.
func (d *Decoder) replayAll(ctx context.Context, mac topic.MAC, w *waiting, c *controller, own *worker, alone bool) error {
	for {
		messages, err := d.readParked(ctx, mac, w.next)
		if err != nil || len(messages) == 0 {
			return err
		}
		if err := d.replayChunk(ctx, messages, c, own); err != nil {
			return err
		}
		w.last = messages[len(messages)-1].Sequence
		w.next = w.last + 1
		if !alone && fewer(messages) {
			return nil
		}
	}
}

// fewer reports whether there were fewer messages on PARKED than are read at once.
func fewer(messages []*jetstream.RawStreamMsg) bool {
	size := 0
	for _, m := range messages {
		size += len(m.Data)
	}
	return len(messages) < chunk && size < chunkBytes/2
}

// replayChunk returns when the outcome of every message is stored.
func (d *Decoder) replayChunk(ctx context.Context, messages []*jetstream.RawStreamMsg, c *controller, own *worker) error {
	own.json = own.json[:0]
	results := make([]result, 0, len(messages))
	for _, parked := range messages {
		if parked.Header.Get(jetstream.MsgRollup) != "" {
			continue // it removed what was before it
		}
		id, err := event.ParseID(parked.Header.Get(event.HeaderID))
		if err != nil {
			d.log.Warn("skipping a message on PARKED: the decoder did not store it", "sequence", parked.Sequence, "error", err)
			continue
		}
		if id.Incarnation() == d.incarnation && d.replayed.seen(id.Sequence(), 2) {
			continue // it was redelivered, and parked again
		}
		m, letter := take(parked.Header.Get(event.HeaderSubject), parked.Header, parked.Data, id, parked.Time)
		out := result{id: id}
		if letter != nil {
			out.dead = append(out.dead, *letter)
		} else {
			d.decodeMessage(&m, c, own, &out)
		}
		results = append(results, out)
	}
	if err := d.store(ctx, results); err != nil {
		return err
	}
	for i := range results {
		if id := results[i].id; id.Incarnation() == d.incarnation {
			d.replayed.mark(id.Sequence())
		}
		d.countOutcome(&results[i])
	}
	return nil
}

// readParked returns some of the controller's messages, from the sequence next on, or none if
// there are no more.
func (d *Decoder) readParked(ctx context.Context, mac topic.MAC, next uint64) (messages []*jetstream.RawStreamMsg, err error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, err := jetstreamext.GetBatch(bounded, d.streams.JetStream(), stream.Parked, chunk,
		jetstreamext.GetBatchSubject(parkedPrefix+string(mac)), jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(chunkBytes))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", stream.Parked, err)
	}
	for m, err := range all {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", stream.Parked, err)
		}
		messages = append(messages, m)
	}
	if bounded.Err() != nil { // the iteration does not return it
		return nil, fmt.Errorf("reading %s: %w", stream.Parked, bounded.Err())
	}
	return messages, nil
}

// removal returns a message that removes a controller's messages from PARKED, if none was
// added after last. It expires itself.
func removal(mac topic.MAC, last uint64) *nats.Msg {
	return &nats.Msg{
		Subject: parkedPrefix + string(mac),
		Header: nats.Header{
			jetstream.MsgRollup:                 {jetstream.MsgRollupSubject},
			jetstream.MsgTTLHeader:              {"1s"},
			jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(last, 10)},
		},
	}
}

// remove removes the decoded messages. It returns false if there are more messages.
func (d *Decoder) remove(ctx context.Context, mac topic.MAC, w *waiting) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	ack, err := d.streams.JetStream().PublishMsg(bounded, removal(mac, w.last))
	var refusal *jetstream.APIError
	if errors.As(err, &refusal) && (refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refusal.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant) {
		w.last = 0 // a message was added, or there is none: the last removal has expired
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing messages from %s: %w", stream.Parked, err)
	}
	w.last, w.next = ack.Sequence, ack.Sequence+1
	return true, nil
}
