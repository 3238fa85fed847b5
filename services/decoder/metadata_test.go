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
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/secrettest"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

const (
	schema   = `Fleet "a"; b` // has to be quoted
	patience = 30 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMetadata uses one server for its subtests.
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
	t.Run("odd", func(t *testing.T) { testOdd(t, pool, admin) })
	t.Run("redecode", func(t *testing.T) { testRedecode(t, pool, admin) })
	t.Run("listen", func(t *testing.T) { testListen(t, l, pool, source, admin) })
}

// testLoad reads the metadata of the demo fleet.
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
	macs := []topic.MAC{fleet.Demo(3)[2].MAC, "ffffffffffff", fleet.FirstMAC}
	together, err := l.loadAll(t.Context(), macs)
	require.NoError(t, err)
	for _, mac := range macs {
		alone, err := l.load(t.Context(), mac)
		require.NoError(t, err)
		assert.Equal(t, alone, together[mac], "one query for all tells the same, in the same version")
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

// testOdd uses a fleet with other column types and with invalid or ambiguous rows. Each
// affects only its own part, and never the query.
func testOdd(t *testing.T, pool *database.Pool, admin *pgx.Conn) { //nolint:thelper // a part of TestMetadata
	const odd = "odd"
	ctx := t.Context()
	require.NoError(t, fleet.CreateSchema(ctx, admin, odd))
	require.NoError(t, fleet.Seed(ctx, admin, odd, fleet.Demo(2)))
	change := func(sql string) {
		t.Helper()
		_, err := admin.Exec(ctx, sql)
		require.NoError(t, err, sql)
	}
	change(`SET search_path TO odd`)
	t.Cleanup(func() {
		_, _ = admin.Exec(context.Background(), "SET search_path TO "+pgx.Identifier{schema}.Sanitize())
	})
	l := newLoader(pool.Pool, odd)
	load := func(mac topic.MAC) *controller {
		t.Helper()
		c, err := l.load(ctx, mac)
		require.NoError(t, err)
		require.NotNil(t, c)
		return c
	}
	sends := func(c *controller) string {
		t.Helper()
		_, d, dead := decodeBody(t, "tele sensor-mode.1.sensor-1", frameBody(contract), c)
		return outline(&d, dead)
	}
	detail := func(c *controller) string {
		t.Helper()
		_, _, dead := decodeBody(t, "tele sensor-mode.1.sensor-1", frameBody(contract), c)
		require.Len(t, dead, 1)
		return dead[0].Detail
	}
	const right = "1=25.52 °C 2=50 % 3=700 ppm"
	other := fleet.Demo(2)[1].MAC
	require.Equal(t, right, sends(load(fleet.FirstMAC)), "the control")
	before := load(fleet.FirstMAC)

	change(`ALTER TABLE "DataPoint" ALTER "Decimals" TYPE numeric(9,2), ALTER "Decimals" DROP NOT NULL,
		ALTER "Offset" TYPE double precision, ALTER "Offset" DROP NOT NULL, ALTER "Length" TYPE text, ALTER "Append" TYPE varchar(20)`)
	assert.Equal(t, right, sends(load(fleet.FirstMAC)), "other types that hold the same")
	change(`UPDATE "DataPoint" SET "Decimals" = 1.5 WHERE "DataPointId" = 1`)
	assert.Equal(t, "2=50 % 3=700 ppm !bad_decimals@1 of a message with 2", sends(load(fleet.FirstMAC)))
	assert.Equal(t, `data point 1 ("Temperature"): its "Decimals" is 1.50; it must be an integer`, detail(load(other)), "a template is everybody's")
	change(`UPDATE "DataPoint" SET "Decimals" = 2, "Offset" = NULL WHERE "DataPointId" = 1`)
	assert.Equal(t, `data point 1 ("Temperature"): its "Offset" is NULL`, detail(load(fleet.FirstMAC)))
	change(`UPDATE "DataPoint" SET "Offset" = 3, "Length" = 'two' WHERE "DataPointId" = 1`)
	assert.Equal(t, `data point 1 ("Temperature"): its "Length" is "two"; it must be an integer`, detail(load(fleet.FirstMAC)))
	change(`UPDATE "DataPoint" SET "Length" = ' 2' WHERE "DataPointId" = 1`)

	change(`ALTER TABLE f2mesh_not_available DROP CONSTRAINT "f2mesh_not_available_DataPointId_fkey"`)
	change(`ALTER TABLE "DataPoint" ALTER "DataPointId" TYPE bigint`)
	change(`INSERT INTO "DataPoint" ("DataPointId", "DeviceTemplateId", "Label", "Offset", "Length", "DataEncoding")
		SELECT 3000000000, "DeviceTemplateId", 'Far', 3, '2', 'Int16' FROM "DataPoint" WHERE "DataPointId" = 1`)
	assert.Equal(t, right+" !bad_metadata of a message with 3", sends(load(fleet.FirstMAC)))
	assert.Equal(t, `"DataPoint" row 3000000000 ("Far"): its "DataPointId" is 3000000000; it must be -2147483648 to 2147483647`, detail(load(fleet.FirstMAC)))
	change(`DELETE FROM "DataPoint" WHERE "DataPointId" = 3000000000`)

	change(`INSERT INTO f2mesh_not_available VALUES (1, '09F8'), (2, 'FFFF'), (3, 'none')`)
	assert.Equal(t, "2=50 % !not_available@1 of a message with 1 !bad_metadata@3 of a message with 1", sends(load(fleet.FirstMAC)))
	change(`DELETE FROM f2mesh_not_available WHERE "DataPointId" > 1`)
	assert.NotEqual(t, before.version, load(fleet.FirstMAC).version)
	change(`DROP TABLE f2mesh_not_available`)
	assert.Equal(t, right, sends(load(fleet.FirstMAC)), "the table is optional")

	change(`ALTER TABLE "Pin" DROP CONSTRAINT "Pin_ConnectorId_Position_key"`)
	change(`INSERT INTO "Pin" ("PinId", "ConnectorId", "Position", "DeviceId") VALUES (900, 1, 1, 2)`)
	assert.Equal(t, right, sends(load(fleet.FirstMAC)), "the same device twice is one meaning")
	change(`UPDATE "Pin" SET "DeviceId" = 3 WHERE "PinId" = 900`)
	assert.Equal(t, "!ambiguous_pin", sends(load(fleet.FirstMAC)))
	assert.Equal(t, `"Pin" rows 1 (device 2, connector 1) and 900 (device 3, connector 1) are position 1 of connector 1; only one device may be there`, detail(load(fleet.FirstMAC)))
	_, d, _ := decodeBody(t, "tele sensor-mode.2.sensor-1", frameBody(contract), load(fleet.FirstMAC))
	assert.NotEmpty(t, d.Values, "another pin of the controller")
	change(`DELETE FROM "Pin" WHERE "PinId" = 900`)

	change(`ALTER TABLE "Connector" DROP CONSTRAINT "Connector_ConnectorNumber_check", ALTER "ConnectorNumber" TYPE text`)
	assert.Equal(t, right, sends(load(fleet.FirstMAC)))
	change(`UPDATE "Connector" SET "ConnectorNumber" = 'first' WHERE "ConnectorId" = 1`)
	assert.Contains(t, detail(load(fleet.FirstMAC)), `has no "Connector" row with "ConnectorNumber" 1; "Connector" row 1: its "ConnectorNumber" is "first"; it must be an integer`)
	assert.Equal(t, right, sends(load(other)), "the other controller goes on throughout")
}

// testListen: a change of the metadata reaches a cache whose lifetimes are much longer than
// the test.
func testListen(t *testing.T, l *loader, pool *database.Pool, source *secrettest.FixedSource, admin *pgx.Conn) { //nolint:thelper // a part of TestMetadata
	cfg := testConfig()
	c, err := newCache(&cfg, l.loadAll, newMetrics(prometheus.NewRegistry()), slog.New(slog.NewTextHandler(t.Output(), nil)))
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
