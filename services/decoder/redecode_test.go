package decoder

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// testRedecode: a Redecoder decodes like a Decoder, with the current metadata.
func testRedecode(t *testing.T, pool *database.Pool, admin *pgx.Conn) { //nolint:thelper // a part of TestMetadata
	demo := fleet.Demo(1)[0]
	var place topic.Topic
	var points []fleet.Point
	for _, connector := range demo.Connectors {
		for _, c := range connector.Components {
			if c.Sensor != nil && points == nil {
				place = topic.Topic{Root: topic.Tele, MAC: demo.MAC, Mode: topic.SensorMode, Connector: connector.Number, Component: topic.Component{Kind: topic.Sensor, Number: c.Number}}
				points = c.Sensor.Template.Points
			}
		}
	}
	require.NotEmpty(t, points)
	data := make([]byte, 64)
	for _, p := range points {
		require.NoError(t, p.Field.Encode(data, frame.FieldValue{Number: 1}))
	}
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	raw := &stream.Message{
		Subject: place.RawSubject(), Data: fmt.Appendf(nil, `{"timestamp":"2026-11-24 11:00:00","data":"%x"}`, data),
		Header: nats.Header{event.HeaderReceived: {at.Format(time.RFC3339Nano)}}, Sequence: 5, Time: at.Add(time.Second),
	}
	id := event.PlaceID(7, 5)
	cfg := Config{Schema: schema, Zone: "Europe/Berlin"}
	decodeNow := func() (*Redecoder, event.Decoded) {
		r, err := NewRedecoder(cfg, pool.Pool)
		require.NoError(t, err)
		result, err := r.Decode(t.Context(), raw, id)
		require.NoError(t, err)
		require.NotNil(t, result.Decoded, "%+v", result.Letters)
		assert.Equal(t, place.DecodedSubject(), result.Subject)
		return r, *result.Decoded
	}
	r, d := decodeNow()
	assert.Equal(t, id, d.ID)
	assert.True(t, at.Equal(d.Time), "the zone is the configuration's")
	assert.True(t, at.Equal(d.Received))
	assert.Len(t, d.Values, len(points))
	assert.InDelta(t, 1, d.Values[0].Number, 0)

	shown, err := r.Points(t.Context(), place)
	require.NoError(t, err)
	require.Len(t, shown, len(points))
	assert.Equal(t, points[0].Label, shown[0].Label)
	assert.Equal(t, points[0].Field.Offset, shown[0].Offset)
	assert.Equal(t, data, r.Frame(place, raw.Data))
	assert.Nil(t, r.Frame(place, []byte("{")))

	_, err = admin.Exec(t.Context(), `UPDATE "DataPoint" SET "Decimals" = "Decimals" + 1 WHERE "DataPointId" = $1`, points[0].DataPointID)
	require.NoError(t, err)
	_, d = decodeNow()
	assert.InDelta(t, 0.1, d.Values[0].Number, 0, "with the metadata of now")
	_, err = admin.Exec(t.Context(), `UPDATE "DataPoint" SET "Decimals" = "Decimals" - 1 WHERE "DataPointId" = $1`, points[0].DataPointID)
	require.NoError(t, err)

	for subject, reason := range map[string]string{
		"f2.raw.nonsense": "bad_subject",
		"f2.raw.tele.ffffffffffff.sensor-mode.1.sensor-1": "unknown_controller",
	} {
		strange := *raw
		strange.Subject = subject
		result, err := r.Decode(t.Context(), &strange, id)
		require.NoError(t, err)
		assert.Nil(t, result.Decoded)
		require.Len(t, result.Letters, 1)
		assert.Equal(t, reason, result.Letters[0].Reason)
		assert.Equal(t, id, result.Letters[0].ID)
	}
	none, err := r.Points(t.Context(), topic.Topic{MAC: "ffffffffffff", Component: topic.Component{Kind: topic.Sensor}})
	require.NoError(t, err)
	assert.Empty(t, none)
	_, err = NewRedecoder(Config{Zone: "nowhere"}, pool.Pool)
	require.ErrorContains(t, err, "zone")
}
