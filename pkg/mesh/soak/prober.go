package soak

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	proberStream  = "SOAK"
	proberSubject = "soak.probe"
)

// prober publishes into a stream of its own and remembers what JetStream acknowledged:
// the same server, disk and settings as RAW's.
type prober struct {
	acked map[uint64]bool // complete once the group of start is done
}

// Kept says what became of the messages that JetStream acknowledged.
type Kept struct {
	Acknowledged int `json:"acknowledged"`
	Missing      int `json:"missing"`
}

// start publishes in the group until ctx ends.
func (p *prober) start(ctx context.Context, js jetstream.JetStream, group *sync.WaitGroup) error {
	p.acked = map[uint64]bool{}
	if err := removeProbes(ctx, js); err != nil {
		return err
	}
	if _, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: proberStream, Subjects: []string{proberSubject}, Storage: jetstream.FileStorage, Description: "what JetStream acknowledged in a soak",
	}); err != nil {
		return fmt.Errorf("making stream %s: %w", proberStream, err)
	}
	group.Go(func() {
		for n := uint64(1); ctx.Err() == nil; n++ {
			bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := js.Publish(bounded, proberSubject, binary.LittleEndian.AppendUint64(nil, n))
			cancel()
			if err == nil {
				p.acked[n] = true
			}
			hold(ctx, 10*time.Millisecond)
		}
	})
	return nil
}

// removeProbes deletes the stream of a run, if there is one.
func removeProbes(ctx context.Context, js jetstream.JetStream) error {
	if err := js.DeleteStream(ctx, proberStream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("deleting stream %s: %w", proberStream, err)
	}
	return nil
}

// judge looks whether the stream has what was acknowledged.
func (p *prober) judge(ctx context.Context, js jetstream.JetStream) (Kept, error) {
	there := map[uint64]bool{}
	if err := scan(ctx, js, proberStream, func(m jetstream.Msg, _ uint64) error {
		if len(m.Data()) == 8 {
			there[binary.LittleEndian.Uint64(m.Data())] = true
		}
		return nil
	}); err != nil {
		return Kept{}, err
	}
	k := Kept{Acknowledged: len(p.acked)}
	for n := range p.acked {
		if !there[n] {
			k.Missing++
		}
	}
	return k, nil
}
