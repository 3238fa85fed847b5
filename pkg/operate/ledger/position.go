package ledger

import (
	"context"

	"github.com/f2mesh/f2mesh/pkg/stream"
)

// readPositions reads how far decoder and writer are. A consumer that does not
// exist has acknowledged nothing.
func (a *audit) readPositions(ctx context.Context) error {
	for _, p := range []StagePosition{{Stream: stream.Raw, Consumer: stream.StageDecoder}, {Stream: stream.Decoded, Consumer: stream.StageWriter}} {
		info, err := stream.FindConsumer(ctx, a.js, p.Stream, p.Consumer)
		if err != nil {
			return err
		}
		if info != nil {
			p.Exists, p.AckFloor, p.Delivered = true, info.AckFloor.Stream, info.Delivered.Stream
			p.InFlight, p.Redelivered, p.Undelivered = info.NumAckPending, info.NumRedelivered, info.NumPending
		}
		a.report.Positions = append(a.report.Positions, p)
	}
	return nil
}

func (a *audit) decoderFloor() uint64 { return a.report.Positions[0].AckFloor }

func (a *audit) writerFloor() uint64 { return a.report.Positions[1].AckFloor }

// stage returns the report's row of one of the three stages.
func (a *audit) stage(name string) *Stage { return a.report.stage(name) }
