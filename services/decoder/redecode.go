package decoder

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/deadletter"
	"github.com/f2mesh/f2mesh/pkg/event"
	"github.com/f2mesh/f2mesh/pkg/payload"
	"github.com/f2mesh/f2mesh/pkg/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// Redecoder decodes messages of RAW once more, as a Decoder with the same Config
// would that has just started. It stores nothing. One goroutine uses it.
type Redecoder struct {
	loader      *loader
	parser      payload.Parser
	controllers map[topic.MAC]*controller // nil: unknown
}

// NewRedecoder returns a Redecoder that reads the metadata through pool. Each
// controller's it reads once.
func NewRedecoder(cfg Config, pool *pgxpool.Pool) (*Redecoder, error) {
	zone, err := time.LoadLocation(cfg.Zone)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return &Redecoder{
		loader: newLoader(pool, cfg.Schema), parser: payload.Parser{Zone: zone, MaxSize: cfg.MaxPayload},
		controllers: make(map[topic.MAC]*controller),
	}, nil
}

// Decode decodes a message of RAW whose place is id.
func (r *Redecoder) Decode(ctx context.Context, raw *stream.Message, id event.ID) (replay.Result, error) {
	m, letter := r.take(raw, id)
	if letter != nil {
		return replay.Result{Letters: []deadletter.Letter{*letter}}, nil
	}
	c, err := r.controller(ctx, m.topic.MAC)
	if err != nil {
		return replay.Result{}, err
	}
	var d event.Decoded
	ok, dead := decode(&m, &r.parser, c, time.Now(), &d)
	result := replay.Result{Letters: dead}
	if ok {
		result.Decoded, result.Subject = &d, m.topic.DecodedSubject()
	}
	return result, nil
}

func (r *Redecoder) take(raw *stream.Message, id event.ID) (message, *deadletter.Letter) {
	m, letter := take(scanned{m: raw}, raw.Time)
	m.id = id
	if letter != nil {
		letter.ID = id
	}
	return m, letter
}

// scanned is a message of a scan as a jetstream.Msg, as far as take reads it.
type scanned struct {
	jetstream.Msg

	m *stream.Message
}

func (s scanned) Subject() string      { return s.m.Subject }
func (s scanned) Data() []byte         { return s.m.Data }
func (s scanned) Headers() nats.Header { return s.m.Header }

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

// Points returns the data points of the sensor that a message is of, none for another
// component or where the metadata do not know it.
func (r *Redecoder) Points(ctx context.Context, t topic.Topic) ([]replay.Point, error) {
	c, err := r.controller(ctx, t.MAC)
	if err != nil || c == nil || t.Component.Kind != topic.Sensor {
		return nil, err
	}
	s := c.pins[pin{t.Connector, t.Component.Number}]
	if s == nil {
		return nil, nil
	}
	points := make([]replay.Point, len(s.points))
	for i := range s.points {
		p := &s.points[i]
		points[i] = replay.Point{ID: p.id, Label: p.label, Unit: p.unit, Offset: p.field.Offset, Length: p.field.Length}
		if p.invalid != nil {
			points[i].Problem = p.invalid.Error()
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
