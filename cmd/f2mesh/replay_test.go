package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
	"github.com/f2mesh/f2mesh/services/decoder"
)

// TestReplayAndRedecode on a whole mesh: a sensor that was wired late gets its history,
// a template that was wrong is corrected, and the ledger knows of both.
func TestReplayAndRedecode(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	handle := &mesh.Mesh{State: m.State, Description: m.Describe(), Secrets: m.Secrets, JetStream: m.js}
	var r *decoder.Replay
	open := func() { // with the metadata of now, as each command does
		var err error
		r, err = decoder.OpenReplay(t.Context(), handle, m.Log)
		require.NoError(t, err)
		t.Cleanup(r.Close)
	}
	open()
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	change := func(sql string) {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	client := m.device(t, mac)
	send := func(sensor, second int) {
		publish(t, client, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-%d", mac, sensor),
			fmt.Sprintf(`{"timestamp":"%s","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`, time.Now().UTC().Add(time.Duration(second)*time.Second).Format("2006-01-02 15:04:05")))
	}
	send(1, 0)
	send(50, 1)
	eventually(t, func() bool { return len(m.deadLetters(t, "f2.dead.decoder.unknown_pin.>")) == 1 }, "no letter")
	m.settled(t)
	rows := m.count(t, "SELECT count(*) FROM measurement")
	out, err := r.Replay(t.Context(), replay.Letters{Filter: deadletter.Filter{MAC: mac}})
	require.NoError(t, err)
	assert.EqualValues(t, 1, out.Refused["unknown_pin"], "the control")

	m.wire(t)
	open()
	out, err = r.Replay(t.Context(), replay.Letters{Filter: deadletter.Filter{MAC: mac}})
	require.NoError(t, err)
	assert.EqualValues(t, 1, out.Accepted, "%+v", out)
	assert.Equal(t, 2*rows, m.count(t, "SELECT count(*) FROM measurement"))
	assert.True(t, m.balance(t).Balanced())

	change(`UPDATE ` + mesh.MetadataSchema + `."DataPoint" SET "Decimals" = "Decimals" + 1 WHERE "DataPointId" = 1`)
	open()
	d, err := r.Redecode(t.Context(), replay.Interval{DryRun: true})
	require.NoError(t, err)
	assert.EqualValues(t, 2, d.Changes(), "%+v", d)
	d, err = r.Redecode(t.Context(), replay.Interval{})
	require.NoError(t, err)
	assert.EqualValues(t, 2, d.Stored)
	m.settled(t)
	assert.Equal(t, 2, m.count(t, "SELECT count(*) FROM measurement WHERE datapoint_id = 1 AND round(value::numeric, 3) = 2.552"))
	assert.Equal(t, 2, m.count(t, "SELECT count(*) FROM measurement_history WHERE reason = 'redecoded' AND round(value::numeric, 2) = 25.52"))
	assert.True(t, m.balance(t).Balanced())
	d, err = r.Redecode(t.Context(), replay.Interval{})
	require.NoError(t, err)
	assert.Zero(t, d.Stored, "nothing is left to change")
}
