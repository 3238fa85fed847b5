package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	agecrypt "filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/account"
	"github.com/f2mesh/f2mesh/pkg/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/backup"
	"github.com/f2mesh/f2mesh/pkg/ledger"
	"github.com/f2mesh/f2mesh/pkg/postgres"
)

// command runs this program on a state directory.
func command(t *testing.T, st state, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "F2MESH_STATE_DIR="+st.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// agePair writes an identity to a file and answers its recipient.
func agePair(t *testing.T) (recipient, file string) {
	t.Helper()
	identity, err := agecrypt.GenerateX25519Identity()
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(file, []byte(identity.String()+"\n"), 0o600))
	return identity.Recipient().String(), file
}

// census counts all databases' rows.
func (m *testMesh) census(t *testing.T) map[string]map[string]int64 {
	t.Helper()
	all := map[string]map[string]int64{}
	for _, d := range localDatabases() {
		conn, err := m.superuser(t.Context(), d.name)
		require.NoError(t, err)
		tx, err := conn.Begin(t.Context())
		require.NoError(t, err)
		c, err := postgres.TakeCensus(t.Context(), tx, d.name)
		require.NoError(t, err)
		require.NoError(t, tx.Rollback(t.Context()))
		require.NoError(t, conn.Close(t.Context()))
		all[d.name] = c.Rows
	}
	return all
}

// balance is the ledger of everything.
func (m *testMesh) balance(t *testing.T) *ledger.Report {
	t.Helper()
	m.settled(t)
	report, err := ledger.Audit(t.Context(), m.js, m.rows, ledger.Options{})
	require.NoError(t, err)
	text := new(strings.Builder)
	_, err = report.WriteTo(text)
	require.NoError(t, err)
	require.True(t, report.Balanced(), text.String())
	require.Zero(t, report.Total.Pending, text.String())
	return report
}

// TestBackup saves a mesh during traffic and once more when all is quiet, and makes
// a mesh of each.
func TestBackup(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	dir := t.TempDir()
	busy, quiet := filepath.Join(dir, "busy"), filepath.Join(dir, "quiet")
	var before *ledger.Report
	var rows map[string]map[string]int64
	var atLeast int64 // rows

	t.Run("save", func(t *testing.T) {
		m := startMesh(t)
		require.NoError(t, m.state.save(m.describe()))
		lock, err := m.state.lock() // as up holds it
		require.NoError(t, err)
		defer func() { _ = lock.Close() }()
		require.NoError(t, hold(lock))
		save := func(file string) {
			out, err := command(t, m.state, "backup", "--to", file, "--recipient", recipient)
			require.NoError(t, err, out)
			t.Log(out)
		}
		// It is the turn of the alternates, which a new cluster does not know.
		for _, name := range []string{secretSuperuser, "timescale_password"} {
			out, err := command(t, m.state, "secret", "rotate", name)
			require.NoError(t, err, out)
		}
		p := m.startProof(t)
		atLeast = int64(m.count(t, "SELECT count(*) FROM measurement"))
		out, err := command(t, m.state, "backup", "--dry-run", "--to", busy, "--recipient", recipient)
		require.NoError(t, err, out)
		assert.Contains(t, out, "RAW")
		require.NoFileExists(t, busy)
		save(busy)
		p.flows(t) // the consumers go on
		p.halt()
		before, rows = m.balance(t), m.census(t)
		save(quiet)
		require.Equal(t, rows, m.census(t), "the control: a backup changes nothing")
		secretsHidden(t, m, busy, quiet)
		refusals(t, quiet, identity)
	})
	require.NotNil(t, before)

	t.Run("restore what was quiet", func(t *testing.T) {
		m := restoreMesh(t, quiet, identity)
		after := m.balance(t)
		assert.Equal(t, before.Total, after.Total)
		assert.Equal(t, before.Rows, after.Rows)
		assert.Len(t, after.Devices, len(before.Devices))
		assert.Equal(t, rows, m.census(t))
		goesOn(t, m)
	})

	t.Run("restore what was busy", func(t *testing.T) {
		m := restoreMesh(t, busy, identity)
		after := m.balance(t) // of what was on its way, too
		assert.Less(t, after.Total.Received, before.Total.Received)
		assert.GreaterOrEqual(t, int64(m.count(t, "SELECT count(*) FROM measurement")), atLeast)
		for _, s := range after.Stages {
			assert.Zero(t, s.Duplicates, s.Name)
		}
		goesOn(t, m)
	})
}

// restoreMesh makes a mesh of a backup and starts it.
func restoreMesh(t *testing.T, file, identity string) *testMesh {
	t.Helper()
	st := state{dir: filepath.Join(accounttest.TempDir(t), "state")}
	out, err := command(t, st, "restore", "--from", file, "--identity", identity)
	t.Cleanup(func() {
		for _, server := range []string{"postgres", "mosquitto", "pgbouncer"} {
			assert.NoError(t, account.Remove(st.path(server)))
		}
	})
	require.NoError(t, err, out)
	out, err = command(t, st, "restore", "--from", file, "--identity", identity)
	require.Error(t, err, "a mesh is there already")
	assert.Contains(t, out, "is not empty")
	return startMeshIn(t, st, testLog(t))
}

// goesOn requires a device with its old certificate to reach the tables.
func goesOn(t *testing.T, m *testMesh) {
	t.Helper()
	p := m.startProof(t)
	p.finish(t)
	p.onceOnly(t)
	assert.Less(t, p.gap, 20*time.Second, "no consumer is still held")
}

func secretsHidden(t *testing.T, m *testMesh, files ...string) {
	t.Helper()
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.False(t, bytes.Contains(data, []byte("PRIVATE KEY")))
		assert.False(t, bytes.Contains(data, []byte("f2.raw.")))
		entries, err := os.ReadDir(m.state.secrets())
		require.NoError(t, err)
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(m.state.secrets(), e.Name()))
			require.NoError(t, err)
			if text = bytes.TrimSpace(text); len(text) > 8 {
				assert.False(t, bytes.Contains(data, text), e.Name())
			}
		}
	}
}

// refusals are of archives and keys that are not right, before anything is written.
func refusals(t *testing.T, file, identity string) {
	t.Helper()
	good, err := os.ReadFile(file)
	require.NoError(t, err)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	_, stranger := agePair(t)
	spoilt := filepath.Join(t.TempDir(), "spoilt")
	st := state{dir: filepath.Join(t.TempDir(), "state")}
	for _, c := range []struct {
		name     string
		data     []byte
		identity string
		told     string
	}{
		{"as it is", good, identity, "every part is as it was written"},
		{"a flipped byte", flipped, identity, backup.ErrDamaged.Error()},
		{"truncated", good[:len(good)/2], identity, backup.ErrDamaged.Error()},
		{"another's key", good, stranger, "another recipient"},
	} {
		require.NoError(t, os.WriteFile(spoilt, c.data, 0o600))
		out, err := command(t, st, "restore", "--dry-run", "--from", spoilt, "--identity", c.identity)
		assert.Contains(t, out, c.told, c.name)
		assert.NoDirExists(t, st.dir, c.name)
		if c.name == "as it is" {
			require.NoError(t, err, out)
			continue
		}
		require.Error(t, err, c.name)
		_, err = command(t, st, "restore", "--from", spoilt, "--identity", c.identity)
		require.Error(t, err, c.name)
		assert.NoDirExists(t, st.dir, c.name)
	}
}

// A restore that breaks off leaves the directory as it was.
func TestRestoreBreaksOff(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	key, err := backup.Recipients([]string{recipient})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "archive")
	w, err := backup.Create(file, key)
	require.NoError(t, err)
	require.NoError(t, w.Commit(&backup.Manifest{})) // sound, and no mesh
	for _, made := range []bool{true, false} {
		st := state{dir: filepath.Join(accounttest.TempDir(t), "state")}
		if !made {
			require.NoError(t, os.Mkdir(st.dir, 0o700))
		}
		out, err := command(t, st, "restore", "--from", file, "--identity", identity)
		require.Error(t, err)
		assert.Contains(t, out, "no CA")
		if made {
			assert.NoDirExists(t, st.dir)
			continue
		}
		entries, err := os.ReadDir(st.dir)
		require.NoError(t, err)
		assert.Empty(t, entries)
	}
}
