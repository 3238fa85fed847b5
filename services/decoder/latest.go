package decoder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	latestPrefix  = "$KV.LATEST."
	decodedPrefix = "f2.decoded."
	// maxComponents is how many components of one controller LATEST gets.
	maxComponents = 256
	// maxHeld is how many components' moments are held in memory. Those of the controllers
	// that have not sent for the longest time are read from LATEST again.
	maxHeld = 500_000
	// together is how many controllers' moments are read with one request. The server returns
	// at most 1,024 messages.
	together = 32
	// ahead is how far a device's clock may be ahead of the receive time. Beyond it the
	// receive time counts: with a clock in the future, a door's state would never change again.
	ahead = 5 * time.Minute
)

// latest remembers which state of each component LATEST has, so that LATEST gets only newer
// ones (design 5.9). Of two states, the one with the later moment is newer. Only one goroutine
// at a time may work for a controller.
type latest struct {
	js jetstream.JetStream

	mu    sync.Mutex // guards the fields below
	known *lru.Cache[topic.MAC, map[component]moment]
	held  int // components in known
}

// component is a component of a controller.
type component struct {
	mode      topic.Mode
	connector int
	component topic.Component
}

// moment orders the states of a component.
type moment struct {
	at int64 // the device's time, or the receive time plus ahead if that is earlier, in Unix microseconds
	id event.ID
}

func momentOf(d *event.Decoded) moment {
	at := d.Time
	if limit := d.Received.Add(ahead); at.After(limit) {
		at = limit
	}
	return moment{at: at.UnixMicro(), id: d.ID}
}

// before reports whether other is newer. With equal times, the later place in RAW is newer.
func (m moment) before(other moment) bool {
	if m.at != other.at {
		return m.at < other.at
	}
	return bytes.Compare(m.id[:], other.id[:]) < 0
}

// state is the state of a component in a DECODED message.
type state struct {
	mac        topic.MAC
	component  component
	moment     moment
	received   time.Time
	deviceTime time.Time
}

// stateOf returns false for a message that is a command and not a state. Older firmware
// publishes readings under cmnd.
func stateOf(t *topic.Topic, d *event.Decoded) (state, bool) {
	if t.Root == topic.Cmnd && t.Component.Kind != topic.Sensor {
		return state{}, false
	}
	return state{
		mac: t.MAC, component: component{t.Mode, t.Connector, t.Component},
		moment: momentOf(d), received: d.Received, deviceTime: d.DeviceTime,
	}, true
}

func newLatest(js jetstream.JetStream, controllers int) (*latest, error) {
	l := &latest{js: js}
	var err error
	l.known, err = lru.NewWithEvict(controllers, func(_ topic.MAC, of map[component]moment) { l.held -= len(of) })
	return l, err
}

// newer returns messages for LATEST: the last result of each component, if it is newer than
// the one in LATEST. refused is how many results are left out because their controller has too
// many components. The caller calls keep after the messages are stored.
func (l *latest) newer(ctx context.Context, results []result) (messages []*nats.Msg, refused int, keep func(), err error) {
	held, err := l.all(ctx, results)
	if err != nil {
		return nil, 0, nil, err
	}
	type key struct {
		mac       topic.MAC
		component component
	}
	last := map[key]int{} // index of the newest of results
	added := map[topic.MAC]int{}
	for i := range results {
		s := &results[i].state
		if s.mac == "" {
			continue
		}
		at := key{s.mac, s.component}
		if before, ok := last[at]; ok {
			if results[before].state.moment.before(s.moment) {
				last[at] = i
			}
			continue
		}
		has, ok := held[s.mac][s.component]
		switch {
		case ok && !has.before(s.moment):
		case !ok && len(held[s.mac])+added[s.mac] >= maxComponents:
			refused++
		default:
			if !ok {
				added[s.mac]++
			}
			last[at] = i
		}
	}
	for i := range results { // in RAW's order
		if s := &results[i].state; s.mac != "" {
			if n, ok := last[key{s.mac, s.component}]; ok && n == i {
				messages = append(messages, s.message(results[i].decoded))
			}
		}
	}
	return messages, refused, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for at, i := range last {
			of := held[at.mac]
			if _, ok := of[at.component]; !ok && l.known.Contains(at.mac) {
				l.held++
			}
			of[at.component] = results[i].state.moment
		}
		for l.held > maxHeld {
			l.known.RemoveOldest()
		}
	}, nil
}

func (s *state) message(decoded *nats.Msg) *nats.Msg {
	m := &nats.Msg{
		Subject: latestPrefix + strings.TrimPrefix(decoded.Subject, decodedPrefix),
		Header:  nats.Header{event.HeaderReceived: {s.received.UTC().Format(time.RFC3339Nano)}},
		Data:    decoded.Data,
	}
	if !s.deviceTime.IsZero() {
		m.Header[event.HeaderDeviceTime] = []string{s.deviceTime.UTC().Format(time.RFC3339Nano)}
	}
	return m
}

// all returns the moments that LATEST has of the controllers of results.
func (l *latest) all(ctx context.Context, results []result) (map[topic.MAC]map[component]moment, error) {
	held := map[topic.MAC]map[component]moment{}
	var unknown []topic.MAC
	l.mu.Lock()
	for i := range results {
		mac := results[i].state.mac
		if _, ok := held[mac]; ok || mac == "" {
			continue
		}
		of, ok := l.known.Get(mac)
		if held[mac] = of; !ok {
			unknown = append(unknown, mac)
		}
	}
	l.mu.Unlock()
	if unknown == nil {
		return held, nil
	}
	var parts sync.Mutex // guards read
	read := make(map[topic.MAC]map[component]moment, len(unknown))
	group, reading := errgroup.WithContext(ctx)
	group.SetLimit(unparked)
	for macs := range slices.Chunk(unknown, together) {
		group.Go(func() error {
			part, err := l.readTogether(reading, macs)
			parts.Lock()
			defer parts.Unlock()
			maps.Copy(read, part)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for mac, of := range read {
		held[mac] = of
		l.known.Add(mac, of)
		l.held += len(of)
	}
	return held, nil
}

// readTogether reads the moments of some controllers from LATEST. The server finds the last
// message of a subject at once, but goes through the stream to find each of many, as readOnce
// has it do: 20 ms a controller at 10,000 controllers with 13 components each.
func (l *latest) readTogether(ctx context.Context, macs []topic.MAC) (map[topic.MAC]map[component]moment, error) {
	all, err := l.readLast(ctx, macs)
	switch {
	case err == nil:
		return all, nil
	case len(macs) > 1: // more components than the server returns at once, or NATS is away
		all, err = l.readTogether(ctx, macs[:len(macs)/2])
		if err != nil {
			return nil, err
		}
		others, err := l.readTogether(ctx, macs[len(macs)/2:])
		maps.Copy(all, others)
		return all, err
	}
	of, err := l.read(ctx, macs[0])
	return map[topic.MAC]map[component]moment{macs[0]: of}, err
}

// readLast reads them with one request.
func (l *latest) readLast(ctx context.Context, macs []topic.MAC) (map[topic.MAC]map[component]moment, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all := make(map[topic.MAC]map[component]moment, len(macs))
	subjects := make([]string, len(macs))
	for i, mac := range macs {
		all[mac], subjects[i] = map[component]moment{}, latestPrefix+string(mac)+".>"
	}
	messages, err := jetstreamext.GetLastMsgsFor(ctx, l.js, stream.Latest, subjects)
	if err != nil {
		return nil, err
	}
	for m, err := range messages {
		if errors.Is(err, jetstreamext.ErrNoMessages) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if mac, c, at, ok := storedMoment(m); ok && all[mac] != nil {
			all[mac][c] = at
		}
	}
	return all, ctx.Err() // the iteration does not return it
}

// storedMoment returns what a message of LATEST is about. ok is false if the decoder did not
// store it, and it counts as the oldest.
func storedMoment(m *jetstream.RawStreamMsg) (mac topic.MAC, c component, at moment, ok bool) {
	subject := decodedPrefix + strings.TrimPrefix(m.Subject, latestPrefix)
	t, err := topic.ParseSubject(subject)
	if err != nil {
		return "", c, at, false
	}
	var d event.Decoded
	if event.ParseDecoded(subject, m.Data, &d) != nil {
		return "", c, at, false
	}
	return t.MAC, component{t.Mode, t.Connector, t.Component}, momentOf(&d), true
}

// read reads a controller's moments from LATEST. It tries until ctx ends.
func (l *latest) read(ctx context.Context, mac topic.MAC) (map[component]moment, error) {
	for {
		of, err := l.readOnce(ctx, mac)
		if err == nil {
			return of, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reading LATEST: %w", errors.Join(ctx.Err(), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// readOnce reads page by page: an earlier version stored more components of a controller than
// the server returns at once.
func (l *latest) readOnce(ctx context.Context, mac topic.MAC) (map[component]moment, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	of := map[component]moment{}
	for next := uint64(1); ; {
		page, err := jetstreamext.GetBatch(ctx, l.js, stream.Latest, chunk,
			jetstreamext.GetBatchSubject(latestPrefix+string(mac)+".>"), jetstreamext.GetBatchSeq(next), jetstreamext.GetBatchMaxBytes(chunkBytes))
		if err != nil {
			return nil, err
		}
		first := next
		for m, err := range page {
			if errors.Is(err, jetstreamext.ErrNoMessages) {
				return of, nil
			}
			if err != nil {
				return nil, err
			}
			next = m.Sequence + 1
			if _, c, at, ok := storedMoment(m); ok {
				of[c] = at
			}
		}
		if ctx.Err() != nil { // the iteration does not return it
			return nil, ctx.Err()
		}
		if next == first {
			return of, nil
		}
	}
}
