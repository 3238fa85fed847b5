package watch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/alarm"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

const (
	latestStream = "KV_LATEST"
	latestPrefix = "$KV.LATEST."
	fetchBatch   = 5000
	// subjectFleet stands for all devices: when none is heard, one alarm says it.
	subjectFleet = "fleet"
)

// silence knows when each device was last heard. It reads of LATEST what is new
// since its last look, headers only, through a consumer of its own: devices that were
// not heard cost nothing.
type silence struct {
	js    jetstream.JetStream
	fleet Fleet
	after time.Duration

	seen   map[topic.MAC]time.Time
	newest time.Time // of all messages
	begun  bool      // LATEST was read once from its beginning
}

func newSilence(js jetstream.JetStream, fleet Fleet, after time.Duration) *silence {
	return &silence{js: js, fleet: fleet, after: after, seen: map[topic.MAC]time.Time{}}
}

// look reads LATEST and raises and clears alarms.
func (s *silence) look(ctx context.Context, now time.Time, a *alarm.Board) error {
	if err := s.read(ctx); err != nil {
		return err
	}
	return s.judge(ctx, now, a)
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
	consumer, err := s.js.Consumer(ctx, latestStream, service)
	if err != nil {
		return fmt.Errorf("reading LATEST: %w", err)
	}
	if !s.begun { // an earlier process took what is there
		if _, err := s.js.ResetConsumerToSequence(ctx, latestStream, service, 1); err != nil {
			return fmt.Errorf("reading LATEST from its beginning: %w", err)
		}
		if consumer, err = s.js.Consumer(ctx, latestStream, service); err != nil {
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
			s.note(m.Subject(), about.Timestamp)
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

func (s *silence) note(subject string, at time.Time) {
	token, _, _ := strings.Cut(strings.TrimPrefix(subject, latestPrefix), ".")
	mac, err := topic.ParseMAC(token)
	if err != nil {
		return
	}
	if at.After(s.seen[mac]) {
		s.seen[mac] = at
	}
	if at.After(s.newest) {
		s.newest = at
	}
}
