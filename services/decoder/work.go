package decoder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// work is a batch and the buffers that are reused for the next one.
type work struct {
	messages []jetstream.Msg
	results  []result // of messages, by index
	workers  []worker
}

// result is the outcome of one message: a decoded message, dead letters, or both; or a parked
// message.
type result struct {
	id      event.ID
	again   bool // its outcome was stored before: it is only acknowledged again
	decoded *nats.Msg
	state   state // of decoded, for LATEST; without a MAC if there is none
	dead    []deadletter.Letter
	parked  *nats.Msg
	mac     topic.MAC // of parked

	wrongCRC       bool // see outcome
	unknownMembers int
}

// maxDecoded is the size of the largest DECODED message. The server refuses messages above its
// max_payload, and Store would retry for ever.
const maxDecoded = 1 << 20

// worker holds the buffers of one goroutine. json holds the DECODED payloads of a batch until
// they are stored.
type worker struct {
	mine    []int // indexes of its messages
	at      int   // of these, the one that it works on
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
	w.messages, w.results = w.messages[:0], w.results[:0]
	for i := range w.workers {
		w.workers[i].mine, w.workers[i].json = w.workers[i].mine[:0], w.workers[i].json[:0]
	}
}

// processBatch returns when the outcome of every message is stored and the messages are
// acknowledged.
func (d *Decoder) processBatch(ctx context.Context, w *work) error {
	if !d.turn.acquire(ctx) {
		return ctx.Err()
	}
	defer d.turn.release()
	if err := d.decodeAll(ctx, w); err != nil {
		return err
	}
	if err := d.store(ctx, w.results); err != nil {
		return err
	}
	if err := d.streams.Acknowledge(ctx, w.messages...); err != nil {
		// They are delivered again, and found in done.
		d.log.Debug("acknowledging decoded messages; they come again", "error", err)
	}
	for i := range w.results {
		d.count(&w.results[i])
	}
	return nil
}

// store returns when every result is stored. The streams do not wait for each other.
func (d *Decoder) store(ctx context.Context, results []result) error {
	var decoded, parked []*nats.Msg
	var dead []deadletter.Letter
	waiting := map[topic.MAC]uint64{}
	for i := range results {
		r := &results[i]
		dead = append(dead, r.dead...)
		if r.decoded != nil {
			decoded = append(decoded, r.decoded)
		}
		if r.parked != nil {
			parked = append(parked, r.parked)
			waiting[r.mac]++
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	store := func(stream string, store func() error) {
		group.Go(func() error { return d.progress.storing(stream, store) })
	}
	if len(decoded) > 0 {
		store(stream.Decoded, func() error {
			_, err := d.streams.Store(ctx, stream.Decoded, decoded)
			return err
		})
		store(stream.Latest, func() error { return d.storeLatest(ctx, results) })
	}
	if len(dead) > 0 {
		store(stream.DeadLetter, func() error { return d.recorder.Record(ctx, dead) })
	}
	if len(parked) > 0 {
		store(stream.Parked, func() error { return d.park(ctx, parked) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for mac, n := range waiting {
		d.parking.keep(mac, n)
	}
	if len(waiting) > 0 {
		d.metrics.waiting.Set(float64(d.parking.len()))
	}
	return nil
}

func (d *Decoder) storeLatest(ctx context.Context, results []result) error {
	messages, refused, keep, err := d.latest.newer(ctx, results)
	if err != nil {
		return err
	}
	if _, err := d.streams.Store(ctx, stream.Latest, messages); err != nil {
		return err
	}
	keep()
	d.metrics.tooMany.Add(float64(refused))
	return nil
}

// decodeAll fills w.results. All messages of one controller go to one worker.
func (d *Decoder) decodeAll(ctx context.Context, w *work) error {
	w.results = w.results[:len(w.messages)]
	for i, m := range w.messages {
		n := shard(m.Subject(), len(w.workers))
		w.workers[n].mine = append(w.workers[n].mine, i)
	}
	lookups, cancel := context.WithTimeout(ctx, lookupBudget)
	defer cancel()
	var group errgroup.Group
	for i := range w.workers {
		if len(w.workers[i].mine) > 0 {
			group.Go(func() error { return d.decodeShare(ctx, lookups, w, &w.workers[i]) })
		}
	}
	return group.Wait()
}

func (d *Decoder) decodeShare(ctx, lookups context.Context, w *work, own *worker) error {
	for at, i := range own.mine {
		own.at = at
		if err := d.decodeOne(ctx, lookups, w, own, i); err != nil {
			return err
		}
	}
	return nil
}

// maxAhead is how many controllers' metadata are read with one query.
const maxAhead = 200

// controllersAhead returns the controllers of the messages that a worker still has, which are
// the first that it works on and others.
func (w *work) controllersAhead(own *worker) []topic.MAC {
	seen := map[topic.MAC]bool{}
	for _, i := range own.mine[own.at:] {
		if text := macOf(w.messages[i].Subject()); text != "" && len(seen) < maxAhead {
			if mac, err := topic.ParseMAC(text); err == nil {
				seen[mac] = true
			}
		}
	}
	return slices.Collect(maps.Keys(seen))
}

// decodeOne decodes or parks message i. lookups limits the wait for metadata.
func (d *Decoder) decodeOne(ctx, lookups context.Context, w *work, own *worker, i int) error {
	raw, out := w.messages[i], &w.results[i]
	meta, err := raw.Metadata()
	if err != nil {
		return fmt.Errorf("reading RAW message: %w", err)
	}
	if d.done.seen(meta.Sequence.Stream, meta.NumDelivered) {
		out.again = true
		return nil
	}
	out.id = event.PlaceID(d.incarnation, meta.Sequence.Stream)
	m, letter := take(raw.Subject(), raw.Headers(), raw.Data(), out.id, meta.Timestamp)
	if letter != nil {
		out.dead = append(out.dead, *letter)
		return nil
	}
	if d.parking.joins(m.topic.MAC) {
		out.park(&m)
		return nil
	}
	if !d.cache.has(m.topic.MAC) {
		d.cache.readAhead(lookups, w.controllersAhead(own))
	}
	c, err := d.cache.get(lookups, m.topic.MAC)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		if lookups.Err() == nil && !errors.Is(err, errAway) {
			d.log.Warn("cannot read metadata; the controller's messages are parked", "mac", m.topic.MAC, "error", err)
		}
		d.parking.add(m.topic.MAC)
		out.park(&m)
	default:
		d.decodeMessage(&m, c, own, out)
	}
	return nil
}

func (r *result) park(m *message) { r.parked, r.mac = parkedMessage(m), m.topic.MAC }

// decodeMessage fills out.
func (d *Decoder) decodeMessage(m *message, c *controller, own *worker, out *result) {
	values := own.decoded.Values[:0]
	own.decoded = event.Decoded{Values: values}
	decoded := decode(m, &d.parser, c, &d.settings, time.Now(), &own.decoded)
	out.dead, out.wrongCRC, out.unknownMembers = decoded.dead, decoded.wrongCRC, decoded.unknownMembers
	if !decoded.ok {
		return
	}
	start := len(own.json)
	own.json = own.decoded.AppendJSON(own.json)
	if size := len(own.json) - start; size > maxDecoded {
		out.dead = []deadletter.Letter{{ // instead of letters for parts
			Stage: stage, Reason: "decoded_too_large", MAC: m.topic.MAC, Topic: m.subject, ID: m.id,
			Detail:   fmt.Sprintf("%d bytes with labels and units; the limit is %d: shorten labels and units in the metadata", size, maxDecoded),
			Received: m.received, Time: time.Now(), MetadataVersion: own.decoded.MetadataVersion,
		}}
		return
	}
	out.decoded = &nats.Msg{
		Subject: m.topic.DecodedSubject(),
		Header:  nats.Header{},
		Data:    own.json[start:len(own.json):len(own.json)],
	}
	if s, ok := stateOf(&m.topic, &own.decoded); ok {
		out.state = s
	}
}

// take parses subject and headers. A message that was not published by the bridge may lack
// the headers; then the receive time is when RAW stored it.
func take(subject string, headers nats.Header, body []byte, id event.ID, stored time.Time) (message, *deadletter.Letter) {
	m := message{subject: subject, id: id, body: body, received: stored, repeat: headers.Get(event.HeaderRepeat) == "1"}
	if at, err := time.Parse(time.RFC3339Nano, headers.Get(event.HeaderReceived)); err == nil {
		m.received = at
	}
	var err error
	if m.topic, err = topic.ParseSubject(m.subject); err != nil {
		return m, &deadletter.Letter{
			Stage: stage, Reason: "bad_subject", Detail: err.Error(), Topic: m.subject, ID: m.id,
			Received: m.received, Time: time.Now(),
		}
	}
	return m, nil
}

// shard returns the worker, of n, for the MAC in a subject.
func shard(subject string, n int) int {
	mac := macOf(subject)
	if mac == "" {
		return 0
	}
	h := uint32(2166136261)
	for _, c := range []byte(mac) {
		h = (h ^ uint32(c)) * 16777619
	}
	return int(h % uint32(n)) //nolint:gosec // n is the number of workers
}

// macOf returns the MAC in a subject f2.raw.<root>.<mac>.…, or "" if it is too short.
func macOf(subject string) string {
	const macAt, macLength = len("f2.raw.tele."), 12
	if len(subject) < macAt+macLength {
		return ""
	}
	return subject[macAt : macAt+macLength]
}

// count counts a message after its outcome is stored, and remembers it.
func (d *Decoder) count(r *result) {
	d.metrics.received.Inc()
	if r.again {
		d.metrics.duplicates.Inc()
		return
	}
	d.done.mark(r.id.Sequence())
	d.countOutcome(r)
}

func (d *Decoder) countOutcome(r *result) {
	if r.wrongCRC {
		d.metrics.wrongCRC.Inc()
	}
	d.metrics.unknownMembers.Add(float64(r.unknownMembers))
	if r.decoded != nil {
		d.metrics.decoded.Inc()
	}
	if r.parked != nil {
		d.metrics.parked.Inc()
	}
	for i := range r.dead {
		d.metrics.deadLetters.WithLabelValues(r.dead[i].Reason).Inc()
	}
}
