package decoder

import (
	"context"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/frame"
	"github.com/f2mesh/f2mesh/pkg/topic"
)

// controller is what the metadata says of one controller. It is never changed
// once it is loaded, so it may be shared.
type controller struct {
	id      int32
	version string // a hash of everything below: the same metadata has the same version
	pins    map[pin]*sensor
	numbers map[int]bool // connectors that exist
}

// pin is where a sensor is wired: connector number and position.
type pin struct{ connector, position int }

type sensor struct {
	id     int32
	name   string
	points []dataPoint
	labels map[string]int // lower-case label -> index of points
}

type dataPoint struct {
	id          int32
	label, unit string
	field       frame.Field
	invalid     error // the metadata of this data point cannot be used
}

// loader reads metadata from PostgreSQL. It is safe for concurrent use.
type loader struct {
	pool  *pgxpool.Pool
	query string
}

func newLoader(pool *pgxpool.Pool, schema string) *loader {
	table := func(name string) string { return pgx.Identifier{schema, name}.Sanitize() }
	return &loader{pool: pool, query: fmt.Sprintf(`
SELECT c."DeviceId", n."ConnectorNumber", p."Position", d."DeviceId", d."DeviceName",
       dp."DataPointId", dp."Label", dp."Offset", dp."Length", dp."DataEncoding", dp."Decimals", dp."Append"
FROM %s c
LEFT JOIN %s n ON n."ControllerId" = c."DeviceId"
LEFT JOIN %s p ON p."ConnectorId" = n."ConnectorId"
LEFT JOIN %s d ON d."DeviceId" = p."DeviceId"
LEFT JOIN %s dp ON dp."DeviceTemplateId" = d."DeviceTemplateId"
WHERE LOWER(c."MacAddress") = ANY($1)
ORDER BY c."DeviceId", n."ConnectorNumber", p."Position", dp."DataPointId"`,
		table("Device"), table("Connector"), table("Pin"), table("Device"), table("DataPoint"))}
}

// row is one line of the query: outer joins leave the right side null.
type row struct {
	controller              int32
	connector, position     *int32
	device                  *int32
	deviceName              *string
	dataPoint               *int32
	label, encoding, suffix *string
	offset, length, decimal *int32
}

// load answers nil if no device has that MAC address, in any usual spelling.
func (l *loader) load(ctx context.Context, mac topic.MAC) (*controller, error) {
	spellings := []string{string(mac), mac.Dashed(), strings.ReplaceAll(mac.Dashed(), "-", ":")}
	rows, err := l.pool.Query(ctx, l.query, spellings)
	if err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	defer rows.Close()
	var c *controller
	version := fnv.New64a()
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.controller, &r.connector, &r.position, &r.device, &r.deviceName,
			&r.dataPoint, &r.label, &r.offset, &r.length, &r.encoding, &r.decimal, &r.suffix); err != nil {
			return nil, fmt.Errorf("reading device metadata: %w", err)
		}
		if c == nil {
			c = &controller{id: r.controller, pins: map[pin]*sensor{}, numbers: map[int]bool{}}
		}
		if r.controller != c.id {
			break // a second device with the same MAC address: the older one is meant
		}
		c.add(&r)
		fmt.Fprint(version, value(r.connector), value(r.position), value(r.device), value(r.deviceName), value(r.dataPoint),
			value(r.label), value(r.offset), value(r.length), value(r.encoding), value(r.decimal), value(r.suffix), "\n")
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading device metadata: %w", err)
	}
	if c != nil {
		c.version = hex.EncodeToString(version.Sum(nil))
	}
	return c, nil
}

func (c *controller) add(r *row) {
	if r.connector == nil {
		return
	}
	c.numbers[int(*r.connector)] = true
	if r.position == nil || r.device == nil {
		return
	}
	at := pin{int(*r.connector), int(*r.position)}
	s := c.pins[at]
	if s == nil {
		s = &sensor{id: *r.device, name: value(r.deviceName), labels: map[string]int{}}
		c.pins[at] = s
	}
	if r.dataPoint == nil {
		return
	}
	p := dataPoint{id: *r.dataPoint, label: value(r.label), unit: value(r.suffix)}
	encoding, err := frame.ParseEncoding(value(r.encoding))
	p.field = frame.Field{Encoding: encoding, Offset: int(value(r.offset)), Length: int(value(r.length)), Decimals: int(value(r.decimal))}
	if err == nil {
		err = p.field.Validate()
	}
	p.invalid = err
	s.labels[strings.ToLower(p.label)] = len(s.points)
	s.points = append(s.points, p)
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
