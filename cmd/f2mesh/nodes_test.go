package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// killNode kills the process of a NATS server by its directory.
func killNode(t *testing.T, dir string) {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, entry := range entries {
		text, _ := os.ReadFile(entry) // it may have ended
		if bytes.HasSuffix(text, []byte("\x00node\x00"+dir+"\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
			return
		}
	}
	t.Fatal("no process of", dir)
}

// A mesh on three NATS servers goes on when the one that leads RAW is killed, and has all
// three again. Its number of servers stays.
func TestThreeNodes(t *testing.T) {
	t.Setenv("F2MESH_TEST_RUN", "1") // the servers run the test's program
	m := startMesh(t, func(c *meshConfig) { c.Nodes = 3 })
	m.Add(local.PartSimulator, simulate(m.Parts, 500*time.Millisecond))
	require.NoError(t, m.Start(t.Context(), local.PartSimulator))
	rows := func() (n int) {
		require.NoError(t, m.rows.QueryRow(t.Context(), "SELECT count(*) FROM measurement").Scan(&n))
		return n
	}
	require.Eventually(t, func() bool { return rows() > 0 }, time.Minute, 100*time.Millisecond)
	info, err := stream.Find(t.Context(), m.js, stream.Raw)
	require.NoError(t, err)
	assert.Equal(t, 3, info.Config.Replicas)
	number := strings.TrimPrefix(info.Cluster.Leader, "f2mesh-")
	dir := m.State.Path("nats-" + number)
	if number == "1" {
		dir = m.State.Path("nats")
	}
	killNode(t, dir)
	before := rows()
	require.Eventually(t, func() bool { return rows() > before+20 }, time.Minute, 100*time.Millisecond)
	require.Eventually(t, func() bool {
		info, err := stream.Find(t.Context(), m.js, stream.Raw)
		return err == nil && info != nil && len(stream.Behind(info)) == 0
	}, time.Minute, 100*time.Millisecond)
	_, err = newMesh(m.State, meshConfig{Config: local.Config{Nodes: 1}}, m.Log)
	require.ErrorContains(t, err, "this state directory has 3 NATS servers, and --nodes says 1")
}
