package fleet

import (
	"context"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

// schema has characters that have to be quoted.
const schema = `Fleet "a"; b`

func connect(t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// TestPostgres shares one server between its parts.
func TestPostgres(t *testing.T) {
	address := postgrestest.DSN(postgrestest.Start(t), "postgres")
	conn := connect(t, address)
	ctx := t.Context()
	require.NoError(t, CreateSchema(ctx, conn, schema))
	require.NoError(t, CreateSchema(ctx, conn, schema))
	var path string
	require.NoError(t, conn.QueryRow(ctx, "SHOW search_path").Scan(&path))
	require.NotContains(t, path, "Fleet", "the caller's search_path is left alone")
	_, err := conn.Exec(ctx, "SET search_path TO "+pgx.Identifier{schema}.Sanitize())
	require.NoError(t, err)

	t.Run("seed", func(t *testing.T) { testSeed(t, conn) })
	t.Run("lookup", func(t *testing.T) { testLookup(t, conn) })
	t.Run("foreign rows", func(t *testing.T) { testForeignRows(t, conn) })
	t.Run("notify", func(t *testing.T) { testNotify(t, conn, connect(t, address)) })
}

func testSeed(t *testing.T, conn *pgx.Conn) { //nolint:thelper // serves tests and benchmarks
	ctx := t.Context()
	require.NoError(t, Seed(ctx, conn, schema, Demo(3)))
	before := versions(t, conn)
	require.NoError(t, Seed(ctx, conn, schema, Demo(3)))
	require.Equal(t, before, versions(t, conn), "rows that are right are not touched")

	exec(t, conn, `UPDATE "DataPoint" SET "Decimals" = 7 WHERE "DataPointId" = 1`)
	require.NoError(t, Seed(ctx, conn, schema, Demo(3)))
	var decimals int
	require.NoError(t, conn.QueryRow(ctx, `SELECT "Decimals" FROM "DataPoint" WHERE "DataPointId" = 1`).Scan(&decimals))
	require.Equal(t, 2, decimals)

	started := time.Now()
	require.NoError(t, Seed(ctx, conn, schema, Demo(5000)))
	t.Log("seeding 5,000 controllers took", time.Since(started))
	require.Less(t, time.Since(started), 20*time.Second)
	exec(t, conn, `INSERT INTO "DeviceType" ("DeviceTypeName") VALUES ('after the demo')`) // the sequence is past the demo's ids
}

// versions are the transactions that wrote the rows.
func versions(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `
		SELECT xmin::text FROM "Device" UNION ALL SELECT xmin::text FROM "Pin"
		UNION ALL SELECT xmin::text FROM "DataPoint" UNION ALL SELECT xmin::text FROM "Connector"`)
	require.NoError(t, err)
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	sort.Strings(list)
	return list
}

// testLookup goes the way of the design from a MAC to data points.
func testLookup(t *testing.T, conn *pgx.Conn) { //nolint:thelper // serves tests and benchmarks
	for _, c := range []Controller{Demo(1)[0], Demo(2)[1]} {
		rows, err := conn.Query(t.Context(), `
			SELECT p."DeviceId", d."Label", d."Offset", d."Length", d."DataEncoding", d."Decimals", d."Append"
			FROM "Device" controller
			JOIN "Connector" c ON c."ControllerId" = controller."DeviceId" AND c."ConnectorNumber" = 1
			JOIN "Pin" p ON p."ConnectorId" = c."ConnectorId" AND p."Position" = 1
			JOIN "Device" s ON s."DeviceId" = p."DeviceId"
			JOIN "DataPoint" d ON d."DeviceTemplateId" = s."DeviceTemplateId"
			WHERE LOWER(controller."MacAddress") = $1 ORDER BY d."DataPointId"`, string(c.MAC))
		require.NoError(t, err)
		type row struct {
			Device         int
			Label          string
			Offset, Length int
			Encoding       string
			Decimals       int
			Unit           string
		}
		got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		require.NoError(t, err)
		sensor := c.ControllerID + 1
		require.Equal(t, []row{
			{sensor, "Temperature", 3, 2, "Int16", 2, "°C"},
			{sensor, "Humidity", 5, 2, "Uint16", 2, "%"},
			{sensor, "CO2", 7, 2, "Uint16", 0, "ppm"},
		}, got)
	}
}

// testForeignRows has somebody else's device under one of the demo's ids.
func testForeignRows(t *testing.T, conn *pgx.Conn) { //nolint:thelper // serves tests and benchmarks
	exec(t, conn, `UPDATE "Device" SET "Uuid" = gen_random_uuid(), "DeviceName" = 'theirs' WHERE "DeviceId" = 2`)
	err := Seed(t.Context(), conn, schema, Demo(1))
	require.ErrorContains(t, err, "belong to somebody else")
	var name string
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT "DeviceName" FROM "Device" WHERE "DeviceId" = 2`).Scan(&name))
	require.Equal(t, "theirs", name)
	exec(t, conn, `DELETE FROM "Device" WHERE "DeviceId" = 2`)
	require.NoError(t, Seed(t.Context(), conn, schema, Demo(1)))
}

func testNotify(t *testing.T, conn, listener *pgx.Conn) { //nolint:thelper // serves tests and benchmarks
	ctx := t.Context()
	exec(t, listener, "LISTEN "+NotifyChannel)
	exec(t, conn, `UPDATE "Pin" SET "Position" = 7 WHERE "PinId" = 1`)
	exec(t, conn, `UPDATE "Pin" SET "Position" = 1 WHERE "PinId" = 1`)
	require.Empty(t, notifications(t, listener), "control: there is no trigger yet")
	require.NoError(t, InstallTrigger(ctx, conn, schema))
	require.NoError(t, InstallTrigger(ctx, conn, schema))
	exec(t, conn, "RESET search_path") // the triggers find the schema by themselves
	for _, test := range []struct {
		name, sql string
		want      []string
	}{
		{"controller", `UPDATE %s."Device" SET "PcbVersion" = '9' WHERE "DeviceId" = 1`, []string{"e4fd45f654be"}},
		{"controller in upper case", `UPDATE %s."Device" SET "PcbVersion" = '9' WHERE "DeviceId" = 17`, []string{"02f200000001"}},
		{"sensor", `UPDATE %s."Device" SET "DeviceTemplateId" = 3 WHERE "DeviceId" = 2`, []string{"e4fd45f654be"}},
		{"pin", `UPDATE %s."Pin" SET "Position" = 8 WHERE "PinId" IN (1, 9)`, []string{"02f200000001", "e4fd45f654be"}},
		{"pin moved to another controller", `UPDATE %s."Pin" SET "ConnectorId" = 5, "Position" = 50 WHERE "PinId" = 2`, []string{"02f200000001", "e4fd45f654be"}},
		{"connector", `UPDATE %s."Connector" SET "ConnectorNumber" = 9 WHERE "ConnectorId" = 1`, []string{"e4fd45f654be"}},
		{"new sensor without a pin", `INSERT INTO %s."Device" ("DeviceName", "DeviceTemplateId", "Uuid") VALUES ('x', 2, gen_random_uuid())`, nil},
		{"MAC changed", `UPDATE %s."Device" SET "MacAddress" = 'AA-BB-CC-DD-EE-FF' WHERE "DeviceId" = 1`, []string{"aabbccddeeff", "e4fd45f654be"}},
		{"data point", `UPDATE %s."DataPoint" SET "Decimals" = 1 WHERE "DataPointId" = 1`, []string{NotifyAll}},
		{"data point removed", `DELETE FROM %s."DataPoint" WHERE "DataPointId" = 2`, []string{NotifyAll}},
		{"nothing changed", `UPDATE %s."DataPoint" SET "Decimals" = 1 WHERE false`, nil},
		{"many controllers", `UPDATE %s."Device" SET "PcbVersion" = '8' WHERE "MacAddress" IS NOT NULL`, []string{NotifyAll}},
		{"sensor removed", `DELETE FROM %s."Device" WHERE "DeviceId" = 18`, []string{"02f200000001"}},
		{"truncated", `TRUNCATE %s."Pin"`, []string{NotifyAll}},
	} {
		exec(t, conn, qualify(test.sql))
		require.Equal(t, test.want, notifications(t, listener), test.name)
	}
	exec(t, conn, qualify(`DELETE FROM %s."Device" WHERE "DeviceId" = 33`))
	require.Contains(t, notifications(t, listener), "02f200000002")

	exec(t, conn, qualify(`CREATE ROLE application; GRANT USAGE ON SCHEMA %s TO application;
		GRANT SELECT, UPDATE ON ALL TABLES IN SCHEMA %s TO application; SET ROLE application`))
	exec(t, conn, qualify(`UPDATE %s."Device" SET "PcbVersion" = '7' WHERE "DeviceId" = 1`))
	require.Equal(t, []string{"aabbccddeeff"}, notifications(t, listener), "who may change the tables needs no more")
	var may bool
	require.NoError(t, conn.QueryRow(ctx, "SELECT has_function_privilege($1, 'EXECUTE')", qualify("%s.f2mesh_device_changed()")).Scan(&may))
	require.False(t, may)
	exec(t, conn, "RESET ROLE")
}

// qualify puts the schema in place of %s.
func qualify(sql string) string {
	return strings.ReplaceAll(sql, "%s", pgx.Identifier{schema}.Sanitize())
}

func exec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}

// notifications returns the sorted payloads that come within a moment.
func notifications(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	var list []string
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		n, err := conn.WaitForNotification(ctx)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			sort.Strings(list)
			return list
		}
		list = append(list, n.Payload)
	}
}
