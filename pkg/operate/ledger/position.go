package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

// readPositions reads how far decoder and writer are. A consumer that does not
// exist has acknowledged nothing.
func (a *audit) readPositions(ctx context.Context) error {
	for _, p := range []Position{{Stream: stream.Raw, Consumer: stream.StageDecoder}, {Stream: stream.Decoded, Consumer: stream.StageWriter}} {
		consumer, err := a.js.Consumer(ctx, p.Stream, p.Consumer)
		switch {
		case err == nil:
			info := consumer.CachedInfo()
			p.Exists, p.AckFloor, p.Delivered = true, info.AckFloor.Stream, info.Delivered.Stream
			p.InFlight, p.Redelivered, p.Undelivered = info.NumAckPending, info.NumRedelivered, info.NumPending
		case !errors.Is(err, jetstream.ErrConsumerNotFound) && !errors.Is(err, jetstream.ErrStreamNotFound):
			return fmt.Errorf("consumer %s of %s: %w", p.Consumer, p.Stream, err)
		}
		a.report.Positions = append(a.report.Positions, p)
	}
	return nil
}

func (a *audit) decoderFloor() uint64 { return a.report.Positions[0].AckFloor }

func (a *audit) writerFloor() uint64 { return a.report.Positions[1].AckFloor }

// stage returns the row of the report for one of the three stages.
func (a *audit) stage(name string) *Stage {
	switch name {
	case stream.StageBridge:
		return &a.report.Stages[0]
	case stream.StageDecoder:
		return &a.report.Stages[1]
	default:
		return &a.report.Stages[2]
	}
}
