package ledger

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
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

// makeTemplate makes a database with the writer's tables, from its migrations.
func makeTemplate(ctx context.Context, c *postgres.Cluster) error {
	admin, err := pgx.Connect(ctx, postgrestest.DSN(c, "postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = admin.Close(ctx) }()
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+template); err != nil {
		return err
	}
	config, err := pgx.ParseConfig(postgrestest.DSN(c, template))
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("../../../services/writer/migrations"))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// mesh is a set of streams, consumers and tables, and the hand of every stage.
type mesh struct {
	t       testing.TB
	js      jetstream.JetStream
	client  *stream.Client
	db      *pgx.Conn
	decoder jetstream.Consumer
	writer  jetstream.Consumer

	letters     map[string]*deadletter.Recorder // by stage
	incarnation uint64
}

func newMesh(tb testing.TB) *mesh {
	tb.Helper()
	ctx := tb.Context()
	m := &mesh{t: tb, db: newDatabase(tb), client: streamtest.NewClient(tb)}
	m.js, m.letters = m.client.JetStream(), make(map[string]*deadletter.Recorder)
	require.NoError(tb, m.client.Ensure(ctx, stream.Raw, stream.Decoded, stream.DeadLetter, stream.Parked))
	raw, err := m.js.Stream(ctx, stream.Raw)
	require.NoError(tb, err)
	m.incarnation = uint64(raw.CachedInfo().Created.UnixNano())
	m.decoder, err = m.client.Consumer(ctx, stream.Raw, stream.StageDecoder)
	require.NoError(tb, err)
	m.writer, err = m.client.Consumer(ctx, stream.Decoded, stream.StageWriter)
	require.NoError(tb, err)
	return m
}

func newDatabase(tb testing.TB) *pgx.Conn {
	tb.Helper()
	db, err := pgx.Connect(tb.Context(), cluster.NewDatabase(tb, template))
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, db.Close(context.Background())) })
	return db
}

func (m *mesh) store(streamName string, messages ...*nats.Msg) {
	m.t.Helper()
	_, err := m.client.Store(m.t.Context(), streamName, messages)
	require.NoError(m.t, err)
}

// reading is a message of sensor-1 of the n-th controller at the second at. It has its
// id from receive.
type reading struct {
	mac topic.MAC
	msg *nats.Msg
	d   event.Decoded
}

var epoch = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func macAt(n int) topic.MAC { return topic.MAC(fmt.Sprintf("e4fd45f6%04x", n)) }

func newReading(controller, at int) *reading {
	r := &reading{mac: macAt(controller)}
	when := epoch.Add(time.Duration(at) * time.Second)
	place := topic.Topic{Root: topic.Tele, MAC: r.mac, Mode: topic.SensorMode, Connector: 1, Component: topic.Component{Kind: topic.Sensor, Number: 1}}
	body := []byte(`{"timestamp":"` + when.Format("2006-01-02 15:04:05") + `","data":"01 03"}`)
	received := time.Now()
	r.msg = &nats.Msg{Subject: place.RawSubject(), Data: body, Header: nats.Header{event.HeaderReceived: {received.UTC().Format(time.RFC3339Nano)}}}
	r.d = event.Decoded{
		Time: when, Received: received, Root: "tele", MAC: string(r.mac), ControllerID: int32(controller),
		Mode: "sensor-mode", Connector: 1, Component: "sensor-1", DeviceID: int32(1000 + controller), Device: "probe",
		Values: []event.DataPoint{
			{DataPointID: 1, Label: "Temperature", Number: float64(at) + 0.52},
			{DataPointID: 2, Label: "Humidity", Number: 50},
			{DataPointID: 3, Label: "CO2", Number: 700},
		},
	}
	return r
}

// newEvent is a reading's counterpart of a door.
func newEvent(controller, at int) *reading {
	r := newReading(controller, at)
	r.d.Values, r.d.DeviceID, r.d.Component = nil, 0, "door-sensors"
	r.d.State = []byte(`{"door-sensor-10":true,"door-sensor-2":1.50}`)
	return r
}

// digest is what a sender's list has of the reading.
func (r *reading) digest() string { return event.ID(event.Digest(r.msg.Subject, r.msg.Data)).String() }

func (r *reading) decoded() *nats.Msg {
	return &nats.Msg{Subject: "f2.decoded." + string(r.mac) + ".sensor-mode.1." + r.d.Component, Header: nats.Header{}, Data: r.d.AppendJSON(nil)}
}

// receive stores readings on RAW, which gives them their ids.
func (m *mesh) receive(readings ...*reading) {
	m.t.Helper()
	for _, r := range readings {
		ack, err := m.js.PublishMsg(m.t.Context(), r.msg)
		require.NoError(m.t, err)
		r.d.ID = event.PlaceID(m.incarnation, ack.Sequence)
	}
}

// decode stores readings on DECODED.
func (m *mesh) decode(readings ...*reading) {
	m.t.Helper()
	for _, r := range readings {
		m.store(stream.Decoded, r.decoded())
	}
}

// refuse stores a letter of a stage.
func (m *mesh) refuse(stage, reason string, r *reading, changes ...func(*deadletter.Letter)) {
	m.t.Helper()
	l := deadletter.Letter{Stage: stage, Reason: reason, MAC: r.mac, ID: r.d.ID, Received: r.d.Received, Time: time.Now()}
	if stage == stream.StageBridge {
		l.Topic, l.Payload = "tele/f2-"+string(r.mac)+"/sensor-mode/J1/sensor-1", r.msg.Data
	}
	for _, change := range changes {
		change(&l)
	}
	if m.letters[stage] == nil {
		m.letters[stage] = deadletter.NewRecorder(m.client)
	}
	require.NoError(m.t, m.letters[stage].Record(m.t.Context(), []deadletter.Letter{l}))
}

// point makes a letter one of a data point, with so many others decoded.
func point(id int32, decoded int) func(*deadletter.Letter) {
	return func(l *deadletter.Letter) { l.Part, l.DataPointID, l.Decoded = true, id, decoded }
}

// remove takes a message off a stream, as nothing ever should.
func (m *mesh) remove(streamName string, sequence uint64) {
	m.t.Helper()
	s, err := m.js.Stream(m.t.Context(), streamName)
	require.NoError(m.t, err)
	require.NoError(m.t, s.DeleteMsg(m.t.Context(), sequence))
}

// write inserts the rows of readings, as the writer would.
func (m *mesh) write(readings ...*reading) {
	m.t.Helper()
	var b pgx.Batch
	for _, r := range readings {
		for _, v := range r.d.Values {
			b.Queue("INSERT INTO measurement (time, device_id, datapoint_id, value, text_value, received) VALUES ($1, $2, $3, CASE WHEN $5::text IS NULL THEN $4::float8 END, $5, $6) ON CONFLICT DO NOTHING",
				r.d.Time, r.d.DeviceID, v.DataPointID, v.Number, v.Text, r.d.Received)
		}
		if r.d.State != nil {
			b.Queue("INSERT INTO device_event (time, event_id, controller_id, mac, root, mode, connector, component, state, received) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
				r.d.Time, r.d.ID.String(), r.d.ControllerID, r.d.MAC, r.d.Root, r.d.Mode, r.d.Connector, r.d.Component, string(r.d.State), r.d.Received)
		}
	}
	require.NoError(m.t, m.db.SendBatch(m.t.Context(), &b).Close())
}

func (m *mesh) exec(sql string, args ...any) {
	m.t.Helper()
	tag, err := m.db.Exec(m.t.Context(), sql, args...)
	require.NoError(m.t, err)
	require.EqualValues(m.t, 1, tag.RowsAffected(), "the test's own change")
}

// pass takes readings through all stages but for the acknowledgements.
func (m *mesh) pass(readings ...*reading) {
	m.t.Helper()
	for _, r := range readings {
		m.receive(r)
		m.decode(r)
	}
	m.write(readings...)
}

// acknowledge moves the floor of a consumer n messages on.
func (m *mesh) acknowledge(consumer jetstream.Consumer, n int) {
	m.t.Helper()
	batch, err := consumer.Fetch(n, jetstream.FetchMaxWait(5*time.Second))
	require.NoError(m.t, err)
	for msg := range batch.Messages() {
		require.NoError(m.t, msg.DoubleAck(m.t.Context()))
		n--
	}
	require.NoError(m.t, batch.Error())
	require.Zero(m.t, n, "messages that were not there to acknowledge")
}

// acknowledgeAll moves both floors to the streams' ends. It does not ask how many
// messages are pending: the server counts them a moment after it has stored them.
func (m *mesh) acknowledgeAll() {
	m.t.Helper()
	for _, c := range []jetstream.Consumer{m.decoder, m.writer} {
		batch, err := c.FetchNoWait(10_000)
		require.NoError(m.t, err)
		for msg := range batch.Messages() {
			require.NoError(m.t, msg.DoubleAck(m.t.Context()))
		}
		require.NoError(m.t, batch.Error())
	}
}

func (m *mesh) audit(options Options) *Report {
	m.t.Helper()
	report, err := Audit(m.t.Context(), m.js, m.db, options)
	require.NoError(m.t, err)
	for _, s := range report.Stages {
		require.Equal(m.t, s.Received, s.Passed+s.DeadLettered+s.Copies+s.Retained+s.Pending+s.Missing, "stage %s", s.Name)
	}
	var letters uint64
	for _, l := range report.Letters {
		letters += l.Messages
	}
	require.Equal(m.t, report.Total.DeadLettered, letters, "dead letters by reason")
	return report
}

// text is the report as people see it.
func text(tb testing.TB, r *Report) string {
	tb.Helper()
	var b strings.Builder
	n, err := r.WriteTo(&b)
	require.NoError(tb, err)
	require.EqualValues(tb, b.Len(), n)
	return b.String()
}
