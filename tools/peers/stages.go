package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// lastMessages is how many messages, at the end of a run, the stages are taken from.
const lastMessages = 5000

// stages is where messages spend their time, as medians in milliseconds. A stream gives a message its time before it
// syncs it. The rest, up to the row, is the sync of DECODED, the writer and PostgreSQL.
type stages struct {
	Broker  float64 `json:"to_bridge_p50_ms"`
	Bridge  float64 `json:"to_raw_p50_ms"`
	Decoder float64 `json:"to_decoded_p50_ms"`
}

func (s stages) String() string {
	return fmt.Sprintf("p50 from publish to the bridge %.1f ms, from there to RAW %.1f ms, from there to DECODED %.1f ms", s.Broker, s.Bridge, s.Decoder)
}

// readStages reads the times of the last messages from the streams.
func readStages(ctx context.Context, s *servers) (all stages, err error) {
	m, err := mesh.Open(ctx, s.State, slog.New(slog.DiscardHandler))
	if err != nil {
		return all, err
	}
	defer m.Close()
	stored := map[uint64]time.Time{} // on RAW, by sequence
	visit := func(name string, each func(*stream.Message) error) error {
		info, err := stream.Find(ctx, m.JetStream, name)
		if err != nil || info == nil {
			return err
		}
		last := info.State.LastSeq
		return stream.Scan{Stream: name, First: last - min(last, lastMessages) + 1, Last: last}.Read(ctx, m.JetStream, each)
	}
	err = visit(stream.Raw, func(m *stream.Message) error {
		stored[m.Sequence] = m.Time
		return nil
	})
	if err != nil {
		return all, err
	}
	var broker, bridge, decoder []float64
	var d event.Decoded
	err = visit(stream.Decoded, func(m *stream.Message) error {
		if err := event.ParseDecoded(m.Subject, m.Data, &d); err != nil {
			return err
		}
		if at, ok := stored[d.ID.Sequence()]; ok {
			broker = append(broker, milliseconds(d.Received.Sub(d.Time)))
			bridge = append(bridge, milliseconds(at.Sub(d.Received)))
			decoder = append(decoder, milliseconds(m.Time.Sub(at)))
		}
		return nil
	})
	return stages{percentile(broker, 50), percentile(bridge, 50), percentile(decoder, 50)}, err
}
