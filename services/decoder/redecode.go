package decoder

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

// Redecoder decodes messages of RAW again, like a Decoder with the same Config that has just
// started. It stores nothing. It is not safe for concurrent use.
type Redecoder struct {
	loader      *loader
	parser      payload.Parser
	settings    settings
	controllers map[topic.MAC]*controller // nil: unknown
}

// NewRedecoder returns a Redecoder. It reads the metadata of each controller once, through
// pool.
func NewRedecoder(cfg Config, pool *pgxpool.Pool) (*Redecoder, error) {
	zone, err := time.LoadLocation(cfg.Zone)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return &Redecoder{
		loader: newLoader(pool, cfg.Schema), parser: payload.Parser{Zone: zone, MaxSize: cfg.MaxPayload}, settings: newSettings(&cfg, nil),
		controllers: make(map[topic.MAC]*controller),
	}, nil
}

// Decode decodes a message of RAW. id is its place in RAW.
func (r *Redecoder) Decode(ctx context.Context, raw *stream.Message, id event.ID) (replay.DecodedMessage, error) {
	m, letter := take(raw.Subject, raw.Header, raw.Data, id, raw.Time)
	if letter != nil {
		return replay.DecodedMessage{Letters: []deadletter.Letter{*letter}}, nil
	}
	c, err := r.controller(ctx, m.topic.MAC)
	if err != nil {
		return replay.DecodedMessage{}, err
	}
	var d event.Decoded
	decoded := decode(&m, &r.parser, c, &r.settings, time.Now(), &d)
	result := replay.DecodedMessage{Letters: decoded.dead}
	if decoded.ok {
		result.Decoded, result.Subject = &d, m.topic.DecodedSubject()
	}
	return result, nil
}

func (r *Redecoder) controller(ctx context.Context, mac topic.MAC) (*controller, error) {
	if c, ok := r.controllers[mac]; ok {
		return c, nil
	}
	c, err := r.loader.load(ctx, mac)
	if err == nil {
		r.controllers[mac] = c
	}
	return c, err
}

// Points returns the data points of a sensor: none for another component, or for an unknown
// sensor.
func (r *Redecoder) Points(ctx context.Context, t topic.Topic) ([]replay.MetadataPoint, error) {
	c, err := r.controller(ctx, t.MAC)
	if err != nil || c == nil || t.Component.Kind != topic.Sensor {
		return nil, err
	}
	s := c.pins[pin{t.Connector, t.Component.Number}]
	if s == nil {
		return nil, nil
	}
	points := make([]replay.MetadataPoint, len(s.points))
	for i := range s.points {
		p := &s.points[i]
		points[i] = replay.MetadataPoint{ID: p.id, Label: p.label, Unit: p.unit, Offset: p.field.Offset, Length: p.field.Length}
		if p.refusal != nil {
			points[i].Problem = p.refusal.detail
		}
	}
	return points, nil
}

// Frame returns the bytes of the frame in a sensor's payload, or nil.
func (r *Redecoder) Frame(t topic.Topic, body []byte) []byte {
	p, err := r.parser.Parse(t, body)
	if err != nil {
		return nil
	}
	return p.Frame
}
