package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// TestNobodyStopsTheFleet has one controller send what is refused, as fast as it can,
// while 20 others send: the rows of those keep coming, all of them, and what the one sends has
// dead letters that name the reason. How long a row takes is logged, not judged.
func TestNobodyStopsTheFleet(t *testing.T) {
	m := startMesh(t, func(c *meshConfig) { c.Controllers = 21 })
	all := fleet.Demo(21)
	villain := m.device(t, all[0].MAC)
	others := make([]mqtt.Client, 20)
	for i := range others {
		others[i] = m.device(t, all[i+1].MAC)
	}
	frame := func(at time.Time) string {
		return fmt.Sprintf(`{"timestamp":%q,"data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`, at.Format(time.RFC3339Nano))
	}
	name := func(mac topic.MAC, component string) string {
		return "tele/f2-" + string(mac) + "/sensor-mode/" + component
	}
	good := func(at time.Time) (string, string) { return name(all[0].MAC, "J1/sensor-1"), frame(at) }
	refused := "f2.dead.writer.refused_by_database." + string(all[0].MAC)
	for _, trouble := range []struct {
		name    string
		send    func(at time.Time) (topic, payload string)
		letters string // subject filter of the one's letters
		rows    string // what a trigger does for each of its rows, in PL/pgSQL
	}{
		{"bad topics", func(time.Time) (string, string) {
			return name(all[0].MAC, "J1/nothing-1"), strings.Repeat("x", 2000)
		}, "f2.dead.bridge.*." + string(all[0].MAC), ""},
		{"no such pin", func(at time.Time) (string, string) {
			return name(all[0].MAC, "J1/sensor-77"), frame(at)
		}, "f2.dead.decoder.unknown_pin." + string(all[0].MAC), ""},
		{"rows that are refused", good, refused, "RAISE EXCEPTION USING ERRCODE = '53400'"},
		{"rows that take long", good, refused, "PERFORM pg_sleep(2)"},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			if trouble.rows != "" {
				m.spoilRows(t, all[0].Sensors()[0].DeviceID, trouble.rows)
			}
			ctx, stop := context.WithCancel(t.Context())
			var busy sync.WaitGroup
			busy.Go(func() {
				for ctx.Err() == nil {
					topic, payload := trouble.send(time.Now().UTC())
					villain.Publish(topic, 1, false, payload).WaitTimeout(30 * time.Second)
				}
			})
			took := m.latencies(t, others, all[1:], func(mac topic.MAC, at time.Time) (string, string) {
				return name(mac, "J1/sensor-1"), frame(at)
			})
			stop()
			busy.Wait()
			slices.Sort(took)
			t.Logf("%d rows of the others: p50 %s, p99 %s, longest %s", len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
			assert.NotEmpty(t, m.deadLetters(t, trouble.letters))
		})
	}
}

// spoilRows runs statements before each row of a device is written, until the test ends.
func (m *testMesh) spoilRows(t *testing.T, device int, statements string) {
	t.Helper()
	m.sql(t, mesh.DatabaseTelemetry, fmt.Sprintf(`CREATE OR REPLACE FUNCTION public.trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.device_id = %d THEN %s; END IF; RETURN NEW; END $$`, device, statements))
	m.sql(t, mesh.DatabaseTelemetry, `CREATE TRIGGER trouble BEFORE INSERT ON public.measurement FOR EACH ROW EXECUTE FUNCTION public.trouble()`)
	t.Cleanup(func() { m.sql(t, mesh.DatabaseTelemetry, `DROP TRIGGER trouble ON public.measurement`) })
}

// latencies publishes a reading of each controller in turn, every 50 ms, and returns
// how long each took to be a row.
func (m *testMesh) latencies(t *testing.T, clients []mqtt.Client, from []fleet.Controller, reading func(topic.MAC, time.Time) (string, string)) []time.Duration {
	t.Helper()
	const readings = 200
	took := make([]time.Duration, readings)
	var waiting sync.WaitGroup
	for i := range readings {
		which := i % len(clients)
		at := time.Now().UTC().Truncate(time.Microsecond)
		name, payload := reading(from[which].MAC, at)
		publish(t, clients[which], name, payload)
		waiting.Go(func() {
			device := from[which].Sensors()[0].DeviceID
			for n := 0; n == 0 && time.Since(at) < time.Minute; time.Sleep(5 * time.Millisecond) {
				if err := m.rows.QueryRow(t.Context(), `SELECT count(*) FROM measurement WHERE device_id = $1 AND time = $2`, device, at).Scan(&n); err != nil {
					n = 0
				}
			}
			took[i] = time.Since(at)
		})
		time.Sleep(50 * time.Millisecond)
	}
	waiting.Wait()
	for _, one := range took {
		require.Less(t, one, time.Minute, "a row of another controller does not come")
	}
	return took
}
