package decoder

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// work is a batch and the buffers that serve one batch after the other.
type work struct {
	messages []jetstream.Msg
	results  []result // of messages, by index
	workers  []worker
	decoded  []*nats.Msg
	dead     []*nats.Msg
}

type result struct {
	seq     uint64 // of the RAW message
	again   bool   // was stored before: only to be acknowledged once more
	decoded *nats.Msg
	dead    []deadletter.Letter

	wrongCRC       bool // see outcome
	unknownMembers int
}

// maxDecoded is the largest DECODED message. The server takes no larger one than
// its max_payload, which Store would try for ever.
const maxDecoded = 1 << 20

// worker holds what one goroutine needs; json holds the DECODED payloads of a
// batch until they are stored.
type worker struct {
	mine    []int // indexes of its messages
	json    []byte
	decoded event.Decoded
}

func newWork(workers, size int) *work {
	return &work{
		messages: make([]jetstream.Msg, 0, size),
		results:  make([]result, 0, size),
		workers:  make([]worker, workers),
	}
}

func (w *work) reset() {
	clear(w.messages)
	clear(w.results)
	clear(w.decoded)
	clear(w.dead)
	w.messages, w.results, w.decoded, w.dead = w.messages[:0], w.results[:0], w.decoded[:0], w.dead[:0]
	for i := range w.workers {
		w.workers[i].mine, w.workers[i].json = w.workers[i].mine[:0], w.workers[i].json[:0]
	}
}

// processBatch returns when the outcome of every message is stored and the
// messages are acknowledged.
func (d *Decoder) processBatch(ctx context.Context, w *work) error {
	if err := d.decodeAll(ctx, w); err != nil {
		return err
	}
	for i := range w.results {
		if m := w.results[i].decoded; m != nil {
			w.decoded = append(w.decoded, m)
		}
		for j := range w.results[i].dead {
			w.dead = append(w.dead, w.results[i].dead[j].Msg())
		}
	}
	if _, err := d.streams.Store(ctx, deadletter.Stream, w.dead); err != nil {
		return err
	}
	if _, err := d.streams.Store(ctx, DecodedStream, w.decoded); err != nil {
		return err
	}
	if err := d.streams.Acknowledge(ctx, w.messages...); err != nil {
		// They will be delivered again, and found in done.
		d.log.Debug("messages will come again", "error", err)
	}
	for i := range w.results {
		d.count(&w.results[i])
	}
	return nil
}

// decodeAll fills w.results. All messages of one controller are one worker's.
func (d *Decoder) decodeAll(ctx context.Context, w *work) error {
	w.results = w.results[:len(w.messages)]
	for i, m := range w.messages {
		n := shard(m.Subject(), len(w.workers))
		w.workers[n].mine = append(w.workers[n].mine, i)
	}
	group, ctx := errgroup.WithContext(ctx)
	for i := range w.workers {
		if len(w.workers[i].mine) > 0 {
			group.Go(func() error { return d.decodeShare(ctx, w, &w.workers[i]) })
		}
	}
	return group.Wait()
}

func (d *Decoder) decodeShare(ctx context.Context, w *work, own *worker) error {
	for _, i := range own.mine {
		if err := d.decodeOne(ctx, w.messages[i], own, &w.results[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) decodeOne(ctx context.Context, raw jetstream.Msg, own *worker, out *result) error {
	meta, err := raw.Metadata()
	if err != nil {
		return fmt.Errorf("reading RAW message: %w", err)
	}
	if d.done.seen(meta.Sequence.Stream, meta.NumDelivered) {
		out.again = true
		return nil
	}
	out.seq = meta.Sequence.Stream
	m, letter := take(raw, meta.Timestamp)
	if letter != nil {
		out.dead = append(out.dead, *letter)
		return nil
	}
	c, err := d.cache.get(ctx, m.topic.MAC)
	if err != nil {
		return err
	}
	values := own.decoded.Values[:0]
	own.decoded = event.Decoded{Values: values}
	decoded := decode(&m, &d.parser, c, &d.settings, time.Now(), &own.decoded)
	out.dead, out.wrongCRC, out.unknownMembers = decoded.dead, decoded.wrongCRC, decoded.unknownMembers
	if decoded.ok {
		start := len(own.json)
		own.json = own.decoded.AppendJSON(own.json)
		if size := len(own.json) - start; size > maxDecoded {
			out.dead = []deadletter.Letter{{ // in place of those of parts
				Stage: stage, Reason: "decoded_too_large", MAC: m.topic.MAC, Topic: m.subject, ID: m.id,
				Detail:  fmt.Sprintf("%d bytes with labels and units, the limit is %d: shorten them in the metadata", size, maxDecoded),
				Payload: m.body, Received: m.received, Time: time.Now(), MetadataVersion: own.decoded.MetadataVersion,
			}}
			return nil
		}
		out.decoded = &nats.Msg{
			Subject: m.topic.DecodedSubject(),
			Header:  nats.Header{},
			Data:    own.json[start:len(own.json):len(own.json)],
		}
	}
	return nil
}

// take reads subject and headers. The bridge writes both; a message that
// somebody published by hand may lack the headers.
func take(raw jetstream.Msg, stored time.Time) (message, *deadletter.Letter) {
	m := message{subject: raw.Subject(), body: raw.Data(), received: stored}
	headers := raw.Headers()
	if at, err := time.Parse(time.RFC3339Nano, headers.Get(event.HeaderReceived)); err == nil {
		m.received = at
	}
	var err error
	if m.id, err = event.ParseID(headers.Get(jetstream.MsgIDHeader)); err != nil {
		m.id = event.NewID(m.subject, m.body, m.received)
	}
	if m.topic, err = topic.ParseSubject(m.subject); err != nil {
		return m, &deadletter.Letter{
			Stage: stage, Reason: "bad_subject", Detail: err.Error(), Topic: m.subject, ID: m.id,
			Payload: m.body, Received: m.received, Time: time.Now(),
		}
	}
	return m, nil
}

// shard spreads controllers over n workers by the MAC in the subject
// f2.raw.<root>.<mac>.….
func shard(subject string, n int) int {
	const macAt, macLength = len("f2.raw.tele."), 12
	if len(subject) < macAt+macLength {
		return 0
	}
	h := uint32(2166136261)
	for _, c := range []byte(subject[macAt : macAt+macLength]) {
		h = (h ^ uint32(c)) * 16777619
	}
	return int(h % uint32(n)) //nolint:gosec // n is the number of workers
}

// count books one message after its outcome is stored, and remembers it.
func (d *Decoder) count(r *result) {
	d.metrics.received.Inc()
	if r.again {
		d.metrics.duplicates.Inc()
		return
	}
	d.done.mark(r.seq)
	if r.wrongCRC {
		d.metrics.wrongCRC.Inc()
	}
	d.metrics.unknownMembers.Add(float64(r.unknownMembers))
	if r.decoded != nil {
		d.metrics.decoded.Inc()
	}
	for i := range r.dead {
		d.metrics.deadLetters.WithLabelValues(r.dead[i].Reason).Inc()
	}
}
