package decoder

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/fleet"
	"github.com/f2mesh/f2mesh/pkg/frame"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

const (
	schema   = `Fleet "a"; b` // has to be quoted
	patience = 30 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMetadata shares one server between its parts.
func TestMetadata(t *testing.T) {
	t.Parallel()
	address := postgrestest.DSN(postgrestest.Start(t), "postgres")
	credential, source := secrettest.Changing(t, postgres.Superuser, postgrestest.Password, 20*time.Millisecond)
	pool, err := database.Open(t.Context(), address, credential)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	admin, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = admin.Close(context.Background()) })
	require.NoError(t, fleet.CreateSchema(t.Context(), admin, schema))
	require.NoError(t, fleet.Seed(t.Context(), admin, schema, fleet.Demo(3)))
	_, err = admin.Exec(t.Context(), "SET search_path TO "+pgx.Identifier{schema}.Sanitize())
	require.NoError(t, err)
	l := newLoader(pool.Pool, schema)
	t.Run("load", func(t *testing.T) { testLoad(t, l, admin) })
	t.Run("listen", func(t *testing.T) { testListen(t, l, pool, source, admin) })
}

// testLoad reads the demo as it was described.
func testLoad(t *testing.T, l *loader, admin *pgx.Conn) { //nolint:thelper // a part of TestMetadata
	for _, demo := range fleet.Demo(3) {
		c, err := l.load(t.Context(), demo.MAC)
		require.NoError(t, err)
		require.NotNil(t, c, demo.MAC)
		assert.EqualValues(t, demo.ControllerID, c.id)
		assert.Len(t, c.numbers, len(demo.Connectors))
		assert.Len(t, c.pins, len(demo.Sensors()))
		for _, connector := range demo.Connectors {
			require.True(t, c.numbers[connector.Number])
			for _, component := range connector.Components {
				s := c.pins[pin{connector.Number, component.Number}]
				if component.Sensor == nil {
					continue
				}
				require.NotNil(t, s, component.String())
				assert.EqualValues(t, component.Sensor.DeviceID, s.id)
				assert.Equal(t, component.Sensor.Name, s.name)
				require.Len(t, s.points, len(component.Sensor.Template.Points))
				for i, want := range component.Sensor.Template.Points {
					assert.Equal(t, dataPoint{id: int32(want.DataPointID), label: want.Label, unit: want.Unit, field: want.Field}, s.points[i])
				}
			}
		}
		again, err := l.load(t.Context(), demo.MAC)
		require.NoError(t, err)
		assert.Equal(t, c, again, "the same metadata have the same version")
	}
	unknown, err := l.load(t.Context(), "ffffffffffff")
	require.NoError(t, err)
	assert.Nil(t, unknown, "the control")

	before, err := l.load(t.Context(), fleet.FirstMAC)
	require.NoError(t, err)
	for _, spelling := range []string{"E4-FD-45-F6-54-BE", "e4:FD:45:f6:54:be", "E4FD45F654BE"} {
		exec(t, admin, `UPDATE "Device" SET "MacAddress" = $1 WHERE "DeviceId" = 1`, spelling)
		found, err := l.load(t.Context(), fleet.FirstMAC)
		require.NoError(t, err)
		assert.Equal(t, before, found, spelling)
	}
	exec(t, admin, `INSERT INTO "Device" ("DeviceName", "DeviceTemplateId", "Uuid", "MacAddress") VALUES ('a copy', 1, gen_random_uuid(), 'e4-fd-45-f6-54-be')`)
	found, err := l.load(t.Context(), fleet.FirstMAC)
	require.NoError(t, err)
	require.NotNil(t, found.refusal, "two devices of one address have no meaning")
	assert.Equal(t, reasonAmbiguousController, found.refusal.reason)
	assert.Regexp(t, `"Device" rows 1 and \d+ have this MAC address`, found.refusal.detail)
	_, d, dead := decodeBody(t, "tele alarm-mode.4.motion-sensor-2", `{"status":true}`, found)
	assert.Equal(t, "!ambiguous_controller", outline(&d, dead))
	exec(t, admin, `DELETE FROM "Device" WHERE "DeviceName" = 'a copy'`)

	exec(t, admin, `UPDATE "DataPoint" SET "DataEncoding" = 'Uint17' WHERE "DataPointId" = 1`)
	changed, err := l.load(t.Context(), fleet.FirstMAC)
	require.NoError(t, err)
	assert.NotEqual(t, before.version, changed.version)
	require.NotNil(t, changed.pins[pin{1, 1}].points[0].refusal)
	assert.Equal(t, frame.ReasonUnknownEncoding, changed.pins[pin{1, 1}].points[0].refusal.reason)
	exec(t, admin, `UPDATE "DataPoint" SET "DataEncoding" = 'Int16' WHERE "DataPointId" = 1`)
}

// testListen sees that a change of the metadata reaches a cache whose own
// lifetimes are far longer than the test.
func testListen(t *testing.T, l *loader, pool *database.Pool, source *secrettest.Source, admin *pgx.Conn) { //nolint:thelper // a part of TestMetadata
	cfg := testConfig()
	c, err := newCache(&cfg, l.load, newMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(t.Output(), nil)))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		listen(ctx, pool, c, c.log)
	}()
	t.Cleanup(func() { cancel(); <-listening })
	name := func(mac topic.MAC) string {
		found, err := c.get(ctx, mac)
		require.NoError(t, err)
		return found.pins[pin{1, 1}].name
	}
	generation := func() uint64 { return c.generation.Load() }
	becomes := func(condition func() bool, what string) {
		require.Eventually(t, condition, patience, 20*time.Millisecond, what)
	}
	becomes(func() bool { return generation() == 1 }, "what was cached before it listened is due")

	other := fleet.Demo(2)[1].MAC
	before, beforeOther := name(fleet.FirstMAC), name(other)
	exec(t, admin, `UPDATE "Device" SET "DeviceName" = 'first' WHERE "DeviceId" = 2`)
	assert.Equal(t, before, name(fleet.FirstMAC), "the control: nobody announces it yet")
	require.NoError(t, fleet.InstallTrigger(t.Context(), admin, schema))
	exec(t, admin, `UPDATE "Device" SET "DeviceName" = 'second' WHERE "DeviceId" = 2`)
	becomes(func() bool { return name(fleet.FirstMAC) == "second" }, "its own change")
	e, ok := c.entries.Peek(other)
	require.True(t, ok)
	assert.False(t, e.loaded.IsZero(), "the others stay")
	assert.Equal(t, beforeOther, name(other))

	exec(t, admin, `UPDATE "DataPoint" SET "Decimals" = 1 WHERE "DataPointId" = 1`)
	decimals := func(mac topic.MAC) int {
		found, err := c.get(ctx, mac)
		require.NoError(t, err)
		return found.pins[pin{1, 1}].points[0].field.Decimals
	}
	becomes(func() bool { return decimals(fleet.FirstMAC) == 1 && decimals(other) == 1 }, "a template's change is everybody's")

	lost := generation()
	exec(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'LISTEN `+channel+`'`)
	becomes(func() bool { return generation() > lost }, "after a lost connection everything is due")
	exec(t, admin, `UPDATE "Device" SET "DeviceName" = 'third' WHERE "DeviceId" = 2`)
	becomes(func() bool { return name(fleet.FirstMAC) == "third" }, "it listens again")

	listener := func() (role string) {
		_ = admin.QueryRow(t.Context(), `SELECT usename FROM pg_stat_activity WHERE query = 'LISTEN `+channel+`'`).Scan(&role)
		return role
	}
	require.Equal(t, postgres.Superuser, listener(), "the control")
	_, err = admin.Exec(t.Context(), `CREATE ROLE other LOGIN SUPERUSER PASSWORD 'rotated'`)
	require.NoError(t, err)
	source.Set("other", "rotated")
	becomes(func() bool { return listener() == "other" }, "it follows a change of its credential")
	exec(t, admin, `UPDATE "Device" SET "DeviceName" = 'fourth' WHERE "DeviceId" = 2`)
	becomes(func() bool { return name(fleet.FirstMAC) == "fourth" }, "it listens as the other")
}

func exec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	tag, err := conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err, sql)
	require.EqualValues(t, 1, tag.RowsAffected(), "the test's own change: %s", sql)
}
