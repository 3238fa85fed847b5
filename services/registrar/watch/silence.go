package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

const (
	latestPrefix = "$KV.LATEST."
	fetchBatch   = 5000
	// subjectFleet stands for all devices: when none is heard, one alarm says it.
	subjectFleet = "fleet"
)

// silence knows when each device was last heard, and the time that it stated then
// if that was implausible. It reads of LATEST what is new since its last look, headers
// only, through a consumer of its own: devices that were not heard cost nothing.
type silence struct {
	js    jetstream.JetStream
	fleet Fleet
	// after is when a device counts as silent, unheardAfter when one that is connected
	// counts as unheard.
	after, unheardAfter time.Duration

	seen   map[topic.MAC]time.Time
	clocks map[topic.MAC]string // the implausible time that the last message stated
	newest time.Time            // of all messages
	begun  bool                 // LATEST was read once from its beginning
}

func newSilence(js jetstream.JetStream, fleet Fleet, cfg *Config) *silence {
	return &silence{
		js: js, fleet: fleet, after: cfg.SilentAfter, unheardAfter: cfg.UnheardAfter,
		seen: map[topic.MAC]time.Time{}, clocks: map[topic.MAC]string{},
	}
}

// look reads LATEST and raises and clears alarms. present are the devices that are
// connected, and since when.
func (s *silence) look(ctx context.Context, now time.Time, present map[topic.MAC]time.Time, a *alarm.Board) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	if err := s.judge(ctx, now, a); err != nil {
		return err
	}
	if err := s.judgeClocks(ctx, a); err != nil {
		return err
	}
	return s.judgePresent(ctx, now, present, a)
}

// judgeClocks is about the last message of each device.
func (s *silence) judgeClocks(ctx context.Context, a *alarm.Board) error {
	active, err := s.fleet.Active(ctx, slices.Collect(maps.Keys(s.clocks)))
	if err != nil {
		return err
	}
	details := make(map[string]string, len(active))
	for _, mac := range active {
		details[string(mac)] = "its last message stated the time " + shorten(s.clocks[mac]) + " and was received at " + s.seen[mac].UTC().Format(time.RFC3339)
	}
	a.Keep(ClockWrong, details)
	return nil
}

// fewUnheard is how many devices have an alarm each while nobody else is heard
// either. More of them are one alarm: the fault is between broker and LATEST.
const fewUnheard = 10

// judgePresent finds what the broker drops without a trace: who is connected, and
// has nothing stored.
func (s *silence) judgePresent(ctx context.Context, now time.Time, present map[topic.MAC]time.Time, a *alarm.Board) error {
	var quiet []topic.MAC
	for mac, since := range present {
		if last := s.seen[mac]; last.After(since) {
			since = last
		}
		if now.Sub(since) > s.unheardAfter {
			quiet = append(quiet, mac)
		}
	}
	active, err := s.fleet.Active(ctx, quiet)
	if err != nil {
		return err
	}
	details := make(map[string]string, len(active))
	if len(active) > fewUnheard && now.Sub(s.newest) > s.unheardAfter {
		details[subjectFleet] = fmt.Sprintf("%d devices are connected and nothing of any device was stored: see whether bridge and decoder run", len(active))
		active = nil
	}
	for _, mac := range active {
		heard := "nothing of it was ever stored"
		if last, ok := s.seen[mac]; ok {
			heard = "the last of it that was stored was received at " + last.UTC().Format(time.RFC3339)
		}
		details[string(mac)] = "it has been connected since " + present[mac].UTC().Format(time.RFC3339) + ", and " + heard +
			": check the spelling of its topics, its dead letters, and whether it is in the metadata"
	}
	a.Keep(Unheard, details)
	return nil
}

func (s *silence) judge(ctx context.Context, now time.Time, a *alarm.Board) error {
	if len(s.seen) == 0 {
		return nil
	}
	if now.Sub(s.newest) > s.after {
		a.Raise(Silent, subjectFleet, "no device has been heard since "+s.newest.UTC().Format(time.RFC3339)+": see whether broker, bridge and decoder run")
		return nil
	}
	a.Clear(Silent, subjectFleet)
	var quiet []topic.MAC
	for mac, at := range s.seen {
		if now.Sub(at) > s.after {
			quiet = append(quiet, mac)
		}
	}
	active, err := s.fleet.Active(ctx, quiet)
	if err != nil {
		return err
	}
	details := make(map[string]string, len(active))
	for _, mac := range active {
		details[string(mac)] = "it was last heard at " + s.seen[mac].UTC().Format(time.RFC3339)
	}
	a.Keep(Silent, details)
	return nil
}

// read takes what LATEST has got since the last look.
func (s *silence) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	consumer, err := s.js.Consumer(ctx, stream.Latest, service)
	if err != nil {
		return fmt.Errorf("reading LATEST: %w", err)
	}
	if !s.begun { // an earlier process took what is there
		if _, err := s.js.ResetConsumerToSequence(ctx, stream.Latest, service, 1); err != nil {
			return fmt.Errorf("reading LATEST from its beginning: %w", err)
		}
		if consumer, err = s.js.Consumer(ctx, stream.Latest, service); err != nil {
			return fmt.Errorf("reading LATEST: %w", err)
		}
	}
	err = s.drain(consumer)
	if s.begun = err == nil; !s.begun { // what was on its way does not come again
		return fmt.Errorf("reading LATEST: %w", err)
	}
	return nil
}

// drain takes all that the consumer has now.
func (s *silence) drain(consumer jetstream.Consumer) error {
	for pending := consumer.CachedInfo().NumPending; pending > 0; {
		batch, err := consumer.FetchNoWait(fetchBatch)
		if err != nil {
			return err
		}
		before := pending
		for m := range batch.Messages() {
			about, err := m.Metadata()
			if err != nil {
				return err
			}
			s.note(m.Subject(), m.Headers(), about.Timestamp)
			pending = about.NumPending
		}
		if err := batch.Error(); err != nil {
			return err
		}
		if pending == before {
			return errors.New("JetStream does not deliver")
		}
	}
	return nil
}

// note takes when the bridge received the message; LATEST may have got it later.
func (s *silence) note(subject string, headers nats.Header, stored time.Time) {
	rest, ours := strings.CutPrefix(subject, latestPrefix)
	if !ours {
		return
	}
	token, _, _ := strings.Cut(rest, ".")
	mac, err := topic.ParseMAC(token)
	if err != nil {
		return
	}
	at := stored
	if received, err := time.Parse(time.RFC3339Nano, headers.Get(event.HeaderReceived)); err == nil && received.Before(stored) {
		at = received
	}
	if at.After(s.newest) {
		s.newest = at
	}
	if at.Before(s.seen[mac]) {
		return
	}
	s.seen[mac] = at
	if stated := headers.Get(event.HeaderDeviceTime); stated != "" {
		s.clocks[mac] = stated
	} else {
		delete(s.clocks, mac)
	}
}
