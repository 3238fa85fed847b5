package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// ticks is a process of a /proc: its CPU time in user and kernel mode, and that of its ended children, in
// hundredths of a second.
type ticks struct {
	pid, parent                     int
	name                            string
	user, kernel, endedUser, endedK int
	peak                            int // KiB
}

func writeProc(t *testing.T, processes []ticks) procfs.FS {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), []byte("cpu  500 100 300 9000 7 20 80 0 0 0\n"), 0o600))
	for _, p := range processes {
		own := filepath.Join(dir, strconv.Itoa(p.pid))
		require.NoError(t, os.Mkdir(own, 0o700))
		stat := fmt.Sprintf("%d (%s) S %d 1 1 0 -1 0 0 0 0 0 %d %d %d %d %s\n", p.pid, p.name, p.parent, p.user, p.kernel, p.endedUser, p.endedK, strings.Repeat("0 ", 35))
		require.NoError(t, os.WriteFile(filepath.Join(own, "stat"), []byte(stat), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(own, "status"), fmt.Appendf(nil, "Name:\t%s\nVmHWM:\t%8d kB\n", p.name, p.peak), 0o600))
	}
	fs, err := procfs.NewFS(dir)
	require.NoError(t, err)
	return fs
}

// TestUsage has a mesh, a Telegraf, and other servers of the same names.
func TestUsage(t *testing.T) {
	t.Parallel()
	fs := writeProc(t, []ticks{
		{pid: 10, parent: 1, name: "f2mesh", user: 100, kernel: 20, endedUser: 3, endedK: 2, peak: 2048},
		{pid: 11, parent: 10, name: "mosquitto", user: 30, kernel: 10},
		{pid: 12, parent: 10, name: "postgres", user: 5, kernel: 5, endedUser: 7, endedK: 3},
		{pid: 13, parent: 12, name: "postgres", user: 50, kernel: 30}, // a backend
		{pid: 14, parent: 10, name: "pgbouncer", user: 2, kernel: 3, peak: 1024},
		{pid: 20, parent: 1, name: "telegraf", user: 400, kernel: 100, peak: 4096},
		{pid: 30, parent: 1, name: "mosquitto", user: 1000},
		{pid: 31, parent: 1, name: "postgres", user: 1000},
		{pid: 32, parent: 31, name: "postgres", user: 1000},
	})
	u, err := processes{up: 10, own: 10}.measure(fs)
	require.NoError(t, err)
	assert.InDelta(t, 1.30, u.own, 1e-9, "with PgBouncer and ended children")
	assert.InDelta(t, 0.40, u.mosquitto, 1e-9)
	assert.InDelta(t, 1.00, u.postgres, 1e-9, "with its backends, ended ones too")
	assert.EqualValues(t, 3<<20, u.peak)
	assert.InDelta(t, 10, u.machine, 1e-9, "without idle time")

	u, err = processes{up: 10, own: 20}.measure(fs)
	require.NoError(t, err)
	assert.InDelta(t, 5.05, u.own, 1e-9)
	assert.InDelta(t, 0.40, u.mosquitto, 1e-9)
}
