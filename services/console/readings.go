package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// deviceEvent is a row of device_event.
type deviceEvent struct {
	Time, Clock     time.Time
	Component, Verb string
	Root            string
	Connector       int
	State           string
	Repeat          bool
}

// events reads the last events of a controller. What a card reader read is personal and
// stays in the database.
func (c *Console) events(ctx context.Context, mac topic.MAC) ([]deviceEvent, error) {
	rows, err := c.from.Readings.Query(ctx, `
SELECT time, coalesce(device_time, 'epoch'), root, connector, component, verb,
       CASE WHEN component LIKE 'reader-%' THEN '{}' ELSE state END::text, possible_repeat
FROM device_event WHERE mac = $1 AND time > now() - interval '7 days' ORDER BY time DESC LIMIT 50`, string(mac))
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	var all []deviceEvent
	var e deviceEvent
	var state string
	_, err = pgx.ForEachRow(rows, []any{&e.Time, &e.Clock, &e.Root, &e.Connector, &e.Component, &e.Verb, &state, &e.Repeat}, func() error {
		e.State = stateText([]byte(state))
		all = append(all, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading events: %w", err)
	}
	return all, nil
}

// spans are the lengths of charts, and what a point of each stands for.
var spans = map[string]struct{ length, step time.Duration }{ //nolint:gochecknoglobals // a constant
	"hour": {time.Hour, 10 * time.Second},
	"day":  {24 * time.Hour, 5 * time.Minute},
	"week": {7 * 24 * time.Hour, 30 * time.Minute},
}

// series are values over time: the mean, least and greatest of each step.
type series struct {
	Time  []float64 `json:"time"` // Unix
	Mean  []float64 `json:"mean"`
	Least []float64 `json:"least"`
	Most  []float64 `json:"most"`
}

// serveSeries answers the values of one reading of a controller's sensor.
func (c *Console) serveSeries(w http.ResponseWriter, r *http.Request, s *session) {
	d, ok := c.controllerOf(w, r, s)
	if !ok {
		return
	}
	device, point := identifier(r.FormValue("device")), identifier(r.FormValue("point"))
	chosen, known := spans[r.FormValue("range")]
	if device == 0 || point == 0 || !known {
		http.Error(w, "device and point must be numbers, range hour, day or week", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	all, err := c.components(ctx, d.MAC)
	if err != nil {
		c.log.Warn("a chart cannot be read", "error", err)
		http.Error(w, "LATEST cannot be read now", http.StatusServiceUnavailable)
		return
	}
	if !slices.ContainsFunc(all, func(one component) bool { return one.device == device }) {
		http.Error(w, "this controller has no such sensor", http.StatusNotFound)
		return
	}
	values, err := c.series(ctx, device, point, chosen.length, chosen.step)
	if err != nil {
		c.log.Warn("a chart cannot be read", "error", err)
		http.Error(w, "the readings cannot be read now", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(values) // the caller has gone
}

// identifier is a number of a device or data point; 0 if the text is none.
func identifier(text string) int32 {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

func (c *Console) series(ctx context.Context, device, point int32, length, step time.Duration) (*series, error) {
	rows, err := c.from.Readings.Query(ctx, `
SELECT extract(epoch FROM date_bin($3, time, 'epoch'))::float8, avg(value), min(value), max(value)
FROM measurement WHERE device_id = $1 AND datapoint_id = $2 AND time > now() - $4::interval AND time < now() + interval '1 hour' AND value IS NOT NULL
GROUP BY 1 ORDER BY 1`, device, point, step, length)
	if err != nil {
		return nil, fmt.Errorf("reading values: %w", err)
	}
	all := &series{Time: []float64{}, Mean: []float64{}, Least: []float64{}, Most: []float64{}}
	var at, mean, least, most float64
	_, err = pgx.ForEachRow(rows, []any{&at, &mean, &least, &most}, func() error {
		all.Time, all.Mean = append(all.Time, at), append(all.Mean, mean)
		all.Least, all.Most = append(all.Least, least), append(all.Most, most)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading values: %w", err)
	}
	return all, nil
}
