package replay_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/pkg/stream/streamtest"
)

// cluster has a template of the tables.
var cluster postgrestest.Shared

const template = "tables"

func TestMain(m *testing.M) { os.Exit(cluster.Main(m, makeTemplate)) }

func makeTemplate(ctx context.Context, c *postgres.Cluster) error {
	for _, step := range []struct{ database, sql string }{
		{"postgres", "CREATE DATABASE " + template},
		{template, `
CREATE TABLE measurement (time timestamptz NOT NULL, device_id int NOT NULL, datapoint_id int NOT NULL, value float8, text_value text,
  received timestamptz NOT NULL, UNIQUE (device_id, datapoint_id, time));
CREATE TABLE device_event (time timestamptz NOT NULL, event_id uuid NOT NULL, state jsonb NOT NULL, UNIQUE (time, event_id));
CREATE TABLE measurement_history (time timestamptz NOT NULL, device_id int NOT NULL, datapoint_id int NOT NULL, value float8, text_value text,
  received timestamptz NOT NULL, event_id uuid NOT NULL, reason text NOT NULL, recorded timestamptz NOT NULL DEFAULT now())`},
	} {
		conn, err := pgx.Connect(ctx, postgrestest.DSN(c, step.database))
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, step.sql)
		_ = conn.Close(ctx)
		if err != nil {
			return err
		}
	}
	return nil
}

const mac = "e4fd45f654be"

// mesh is streams and tables, with a decoder whose metadata a test sets and a writer of
// its own.
type mesh struct {
	t *testing.T
	replay.Replayer
	pool        *pgxpool.Pool
	incarnation uint64

	received int
	scale    float64        // of what is decoded; 0: the controller is unknown
	points   []int32        // data points; the n-th value is n times the body's number
	bad      map[int32]bool // data points whose metadata are wrong

	mu     sync.Mutex
	writes bool // the writer inserts
	stored int  // messages that it took
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	ctx := t.Context()
	m := &mesh{t: t, scale: 1, points: []int32{1, 2}, bad: map[int32]bool{}, writes: true}
	m.Streams, m.Decoder, m.Log = streamtest.NewClient(t), m, slog.New(slog.DiscardHandler)
	require.NoError(t, m.Streams.Ensure(ctx, "RAW", "DECODED", stream.DeadLetter))
	raw, err := m.Streams.JetStream().Stream(ctx, "RAW")
	require.NoError(t, err)
	m.incarnation = uint64(raw.CachedInfo().Created.UnixNano())
	m.pool, err = pgxpool.New(ctx, cluster.NewDatabase(t, template))
	require.NoError(t, err)
	t.Cleanup(m.pool.Close)
	m.Tables, err = replay.NewTables(ctx, m.pool)
	require.NoError(t, err)
	m.startWriter()
	return m
}

// Frame is the body.
func (m *mesh) Frame(_ topic.Topic, body []byte) []byte { return body }

// Points returns none.
func (m *mesh) Points(context.Context, topic.Topic) ([]replay.MetadataPoint, error) { return nil, nil }

// Decode reads a body that is a number of a sensor, or a door's "open" or "closed".
func (m *mesh) Decode(_ context.Context, raw *stream.Message, id event.ID) (replay.DecodedMessage, error) {
	l := deadletter.Letter{Stage: "decoder", Reason: "unknown_controller", MAC: mac, ID: id, Received: raw.Time}
	if m.scale == 0 {
		return replay.DecodedMessage{Letters: []deadletter.Letter{l}}, nil
	}
	received, err := time.Parse(time.RFC3339Nano, raw.Header.Get(event.HeaderReceived))
	require.NoError(m.t, err)
	d := &event.Decoded{
		ID: id, Time: received.Truncate(time.Microsecond), Received: received, Root: "tele", MAC: mac, Mode: "sensor-mode", Connector: 1, ControllerID: 7,
	}
	out := replay.DecodedMessage{Decoded: d, Subject: "f2.decoded." + mac + ".sensor-mode.1.sensor-1"}
	number, err := strconv.ParseFloat(string(raw.Data), 64)
	if err != nil {
		d.Component, d.State = "door-sensors", fmt.Appendf(nil, `{"door-sensor-1":%q}`, raw.Data)
		return out, nil //nolint:nilerr // what is no number is a door's
	}
	d.Component, d.DeviceID = "sensor-1", 70
	for _, point := range m.points {
		if m.bad[point] {
			l.Reason, l.Part, l.DataPointID = "out_of_range", true, point
			out.Letters = append(out.Letters, l)
			continue
		}
		d.Values = append(d.Values, event.DataPoint{DataPointID: point, Label: fmt.Sprint("P", point), Number: number * float64(point) * m.scale})
	}
	for i := range out.Letters {
		out.Letters[i].Decoded = len(d.Values)
	}
	if len(d.Values) == 0 {
		out.Decoded = nil
	}
	return out, nil
}

// startWriter writes rows as the writer does, and keeps what it replaces.
func (m *mesh) startWriter() {
	m.t.Helper()
	consumer, err := m.Streams.Consumer(m.t.Context(), "DECODED", "writer")
	require.NoError(m.t, err)
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.stored++
		if m.writes {
			assert.NoError(m.t, m.write(msg)) //nolint:testifylint // not on the test's goroutine
		}
		assert.NoError(m.t, msg.Ack())
	})
	require.NoError(m.t, err)
	m.t.Cleanup(func() { consuming.Stop(); <-consuming.Closed() })
}

func (m *mesh) write(msg jetstream.Msg) error {
	var d event.Decoded
	if err := event.ParseDecoded(msg.Subject(), msg.Data(), &d); err != nil {
		return err
	}
	replace := msg.Headers().Get(event.HeaderReplace) != ""
	var b pgx.Batch
	for _, v := range d.Values {
		key := []any{d.Time, d.DeviceID, v.DataPointID, v.Number, d.Received, d.ID.String()}
		b.Queue("INSERT INTO measurement (time, device_id, datapoint_id, value, received) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING", key[:5]...)
		if replace {
			b.Queue(`WITH old AS (INSERT INTO measurement_history (time, device_id, datapoint_id, value, received, event_id, reason)
SELECT time, device_id, datapoint_id, value, $5, $6::text::uuid, 'redecoded' FROM measurement WHERE time = $1 AND device_id = $2 AND datapoint_id = $3 AND value <> $4)
UPDATE measurement SET value = $4 WHERE time = $1 AND device_id = $2 AND datapoint_id = $3`, key...)
		} else {
			b.Queue(`INSERT INTO measurement_history (time, device_id, datapoint_id, value, received, event_id, reason)
SELECT time, device_id, datapoint_id, $4, $5, $6::text::uuid, 'conflict' FROM measurement WHERE time = $1 AND device_id = $2 AND datapoint_id = $3 AND value <> $4`, key...)
		}
	}
	if d.State != nil {
		b.Queue("INSERT INTO device_event (time, event_id, state) VALUES ($1, $2::text::uuid, $3) ON CONFLICT DO NOTHING", d.Time, d.ID.String(), string(d.State))
	}
	return m.pool.SendBatch(context.Background(), &b).Close()
}

var moment = time.Date(2026, 11, 24, 10, 0, 0, 123456789, time.UTC)

// receive stores bodies on RAW, a second apart each, and returns their places.
func (m *mesh) receive(bodies ...string) (ids []event.ID) {
	m.t.Helper()
	for _, body := range bodies {
		raw := nats.NewMsg("f2.raw.tele." + mac + ".sensor-mode.1.sensor-1")
		raw.Data = []byte(body)
		raw.Header[event.HeaderReceived] = []string{moment.Add(time.Duration(m.received) * time.Second).Format(time.RFC3339Nano)}
		m.received++
		ack, err := m.Streams.JetStream().PublishMsg(m.t.Context(), raw)
		require.NoError(m.t, err)
		ids = append(ids, event.PlaceID(m.incarnation, ack.Sequence))
	}
	return ids
}

// pass has everything on RAW decoded and written once, as the decoder does.
func (m *mesh) pass() {
	m.t.Helper()
	_, err := m.Redecode(m.t.Context(), replay.Interval{})
	require.NoError(m.t, err)
	m.settled()
}

// settled waits for the writer.
func (m *mesh) settled() {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		c, err := m.Streams.JetStream().Consumer(m.t.Context(), "DECODED", "writer")
		return err == nil && c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == 0
	}, 30*time.Second, 20*time.Millisecond)
}

func (m *mesh) count(query string, args ...any) (n int) {
	m.t.Helper()
	require.NoError(m.t, m.pool.QueryRow(m.t.Context(), query, args...).Scan(&n))
	return n
}

func (m *mesh) taken() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stored
}

// refuse records letters of what today's metadata refuse.
func (m *mesh) refuse(ids ...event.ID) {
	m.t.Helper()
	r := deadletter.NewRecorder(m.Streams)
	raw, err := m.Streams.JetStream().Stream(m.t.Context(), "RAW")
	require.NoError(m.t, err)
	for _, id := range ids {
		found, err := raw.GetMsg(m.t.Context(), id.Sequence())
		require.NoError(m.t, err)
		result, err := m.Decode(m.t.Context(), &stream.Message{Header: found.Header, Data: found.Data, Time: found.Time}, id)
		require.NoError(m.t, err)
		require.NotEmpty(m.t, result.Letters)
		require.NoError(m.t, r.Record(m.t.Context(), result.Letters))
	}
}

func (m *mesh) letters() (n int) {
	m.t.Helper()
	f := deadletter.Filter{}
	require.NoError(m.t, f.Read(m.t.Context(), m.Streams.JetStream(), func(l deadletter.Stored) error {
		if !l.Removed {
			n++
		}
		return nil
	}))
	return n
}

func (m *mesh) replay(l replay.Letters) *replay.Replayed {
	m.t.Helper()
	out, err := m.Replay(m.t.Context(), l)
	require.NoError(m.t, err)
	return out
}
