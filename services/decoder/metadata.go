package decoder

import (
	"context"
	"fmt"
	"maps"
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
       (SELECT COALESCE(has_table_privilege(to_regclass($2), 'SELECT'), false)), LOWER(c."MacAddress")
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
	found, err := l.loadAll(ctx, []topic.MAC{mac})
	return found[mac], err
}

// loadAll loads some controllers with one query for all. Those that no device has are nil.
func (l *loader) loadAll(ctx context.Context, macs []topic.MAC) (map[topic.MAC]*controller, error) {
	spellings := make([]string, 0, 3*len(macs))
	builders := make(map[topic.MAC]*builder, len(macs))
	for _, mac := range macs {
		dashed := mac.Dashed()
		spellings = append(spellings, string(mac), dashed, strings.ReplaceAll(dashed, "-", ":"))
		builders[mac] = newBuilder()
	}
	rows, err := l.pool.Query(ctx, l.query, spellings, l.absentTable)
	if err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	defer rows.Close()
	readable := false
	for rows.Next() {
		var r row
		var spelling string
		if err := rows.Scan(&r.controller, &r.connector, &r.number, &r.pin, &r.position, &r.device, &r.deviceName,
			&r.dataPoint, &r.label, &r.offset, &r.length, &r.encoding, &r.decimals, &r.unit, &readable, &spelling); err != nil {
			return nil, fmt.Errorf("reading device metadata: %w", err)
		}
		builders[topic.MAC(separators.Replace(spelling))].add(&r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	if readable {
		if err := l.loadAbsent(ctx, builders); err != nil {
			return nil, fmt.Errorf("reading %s: %w", notAvailableTable, err)
		}
	}
	found := make(map[topic.MAC]*controller, len(macs))
	for mac, b := range builders {
		found[mac] = b.build()
	}
	return found, nil
}

var separators = strings.NewReplacer("-", "", ":", "")

// loadAbsent reads the values that mean "not available".
func (l *loader) loadAbsent(ctx context.Context, builders map[topic.MAC]*builder) error {
	with := map[string][]*builder{} // by data point; controllers share those of a template
	for _, b := range builders {
		for at := range b.points {
			if all := with[at.id]; len(all) == 0 || all[len(all)-1] != b {
				with[at.id] = append(all, b)
			}
		}
	}
	if len(with) == 0 {
		return nil
	}
	rows, err := l.pool.Query(ctx, l.absentQuery, slices.Collect(maps.Keys(with)))
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
		for _, b := range with[id] {
			b.addAbsent(id, raw)
		}
	}
	return rows.Err()
}
