package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/services/simulator"
)

// TestSimulateLeavesOthersAlone has a fleet beside the mesh's own, and counts whose
// messages come.
func TestSimulateLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	const own, more = 2, 3
	m := startMesh(t, func(c *meshConfig) { c.Controllers = own })
	m.Add(local.PartSimulator, simulate(m.Parts, 200*time.Millisecond))
	require.NoError(t, m.Start(t.Context(), local.PartSimulator))
	r := m.Describe()
	require.True(t, r.Simulating)
	lock, err := m.State.Lock()
	require.NoError(t, err)
	defer func() { _ = lock.Close() }()
	require.NoError(t, mesh.NoteHolder(lock))
	require.NoError(t, m.State.Save(r))

	play := func() error {
		c := simulateCommand{Controllers: more, Config: simulator.Config{Messages: 120, Rate: 120}} // a second: each has its share
		return c.Run(t.Context(), &globals{StateDir: m.State.Dir}, m.Log)
	}
	require.NoError(t, play())
	for i, controller := range fleet.Demo(own + more) {
		eventually(t, func() bool {
			return m.count(t, "SELECT count(*) FROM device_event WHERE mac = $1", string(controller.MAC)) > 0
		}, "controller %d sends nothing", i)
	}

	held, err := mesh.LockSimulation(m.State)
	require.NoError(t, err)
	require.ErrorContains(t, play(), "another `f2mesh simulate`")
	require.NoError(t, held.Close())
}

func TestOthers(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	assert.Equal(t, fleet.Demo(5)[2:], mesh.OtherControllers(&mesh.Description{Controllers: 2, Simulating: true}, 3, &out))
	assert.Contains(t, out.String(), "--no-simulate")
	out.Reset()
	assert.Equal(t, fleet.Demo(3), mesh.OtherControllers(&mesh.Description{Controllers: 2}, 3, &out))
	assert.Empty(t, out.String())
}
