package decoder

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// controller is the metadata of one controller. It does not change once it is loaded, so it
// may be shared.
type controller struct {
	id      int32
	version string // a hash of everything below: the same metadata has the same version
	pins    map[pin]*sensor
	numbers map[int]bool // connectors that exist
	unread  string       // unreadable rows, for the detail of what is missing
	refusal *refusal     // why nothing of the controller can be decoded
}

// pin is the place of a sensor: connector number and position.
type pin struct{ connector, position int }

type sensor struct {
	id        int32
	name      string
	points    []dataPoint // by id
	layout    frame.Layout
	labels    map[string]int    // lower-case label -> index of points
	ambiguous map[string]string // lower-case label -> the data points that share it
	unread    string            // data points whose id cannot be read
	refusal   *refusal          // why nothing of the sensor can be decoded
}

type dataPoint struct {
	id          int32
	label, unit string
	field       frame.Field
	absent      []uint64 // raw values that mean "not available"
	refusal     *refusal // why the data point cannot be decoded
}

// isAbsent reports whether the frame has a value that means "not available".
func (p *dataPoint) isAbsent(data []byte) bool {
	if len(p.absent) == 0 {
		return false
	}
	raw, ok := p.field.Raw(data)
	return ok && slices.Contains(p.absent, raw)
}

// loader reads metadata from PostgreSQL. It is safe for concurrent use.
//
// It reads every column as text: the fleet decides on the types, and an unreadable value
// affects its own data point only, not the query.
type loader struct {
	pool        *pgxpool.Pool
	query       string
	absentTable string
	absentQuery string
}

// notAvailableTable holds raw values of data points that mean "not available". It is f2mesh's
// own table, and optional.
const notAvailableTable = "f2mesh_not_available"

func newLoader(pool *pgxpool.Pool, schema string) *loader {
	table := func(name string) string { return pgx.Identifier{schema, name}.Sanitize() }
	return &loader{
		pool: pool,
		query: fmt.Sprintf(`
SELECT c."DeviceId"::text, n."ConnectorId"::text, n."ConnectorNumber"::text, p."PinId"::text, p."Position"::text,
       d."DeviceId"::text, d."DeviceName"::text, dp."DataPointId"::text, dp."Label"::text, dp."Offset"::text,
       dp."Length"::text, dp."DataEncoding"::text, dp."Decimals"::text, dp."Append"::text,
       (SELECT COALESCE(has_table_privilege(to_regclass($2), 'SELECT'), false))
FROM %s c
LEFT JOIN %s n ON n."ControllerId" = c."DeviceId"
LEFT JOIN %s p ON p."ConnectorId" = n."ConnectorId"
LEFT JOIN %s d ON d."DeviceId" = p."DeviceId"
LEFT JOIN %s dp ON dp."DeviceTemplateId" = d."DeviceTemplateId"
WHERE LOWER(c."MacAddress") = ANY($1)
ORDER BY c."DeviceId", n."ConnectorNumber", n."ConnectorId", p."Position", p."PinId", dp."DataPointId"`,
			table("Device"), table("Connector"), table("Pin"), table("Device"), table("DataPoint")),
		absentTable: table(notAvailableTable),
		absentQuery: fmt.Sprintf(`SELECT "DataPointId"::text, "RawValue"::text FROM %s WHERE "DataPointId"::text = ANY($1) ORDER BY 1, 2`,
			table(notAvailableTable)),
	}
}

// row is one row of the query. Outer joins leave the right side null.
type row struct {
	controller                                       string
	connector, number                                *string // "ConnectorId", "ConnectorNumber"
	pin, position                                    *string // "PinId", "Position"
	device, deviceName                               *string
	dataPoint, label, offset, length, encoding, unit *string
	decimals                                         *string
}

// load returns nil if no device has that MAC address, in any usual spelling.
func (l *loader) load(ctx context.Context, mac topic.MAC) (*controller, error) {
	spellings := []string{string(mac), mac.Dashed(), strings.ReplaceAll(mac.Dashed(), "-", ":")}
	rows, err := l.pool.Query(ctx, l.query, spellings, l.absentTable)
	if err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	defer rows.Close()
	b := newBuilder()
	readable := false
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.controller, &r.connector, &r.number, &r.pin, &r.position, &r.device, &r.deviceName,
			&r.dataPoint, &r.label, &r.offset, &r.length, &r.encoding, &r.decimals, &r.unit, &readable); err != nil {
			return nil, fmt.Errorf("reading device metadata: %w", err)
		}
		b.add(&r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	if readable && len(b.points) > 0 {
		if err := l.loadAbsent(ctx, b); err != nil {
			return nil, fmt.Errorf("reading %s: %w", notAvailableTable, err)
		}
	}
	return b.build(), nil
}

// loadAbsent reads the values that mean "not available".
func (l *loader) loadAbsent(ctx context.Context, b *builder) error {
	var ids []string
	for at := range b.points {
		ids = append(ids, at.id)
	}
	rows, err := l.pool.Query(ctx, l.absentQuery, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var raw *string
		if err := rows.Scan(&id, &raw); err != nil {
			return err
		}
		b.addAbsent(id, raw)
	}
	return rows.Err()
}
