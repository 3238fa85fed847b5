package compose

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// backups saves the mesh, and makes one of the backup where there is nothing left.
func (e *engine) backups(t *testing.T) {
	t.Helper()
	if !hasTimescale(t) { // init has been there again
		withoutTimescale(t, e.volume("timescaledb-config"))
	}
	require.True(t, e.stop("simulator")) // what is counted is to stay
	before := e.settled(t)
	require.NotZero(t, before.Rows)
	require.NotZero(t, before.Streams["RAW"].Messages)
	key := passphrase(t, "correct horse battery staple")
	file := filepath.Join(t.TempDir(), "mesh.age")
	save := []string{"backup", "--compose=" + e.dir, "--to=" + file, "--passphrase-file=" + key}

	ran := e.up()
	out, asked, err := e.f2mesh(append(save, "--dry-run")...)
	require.NoError(t, err, out)
	assert.NotContains(t, asked, "stop")
	assert.Equal(t, ran, e.up(), "the control: a dry run stops nothing")
	require.NoFileExists(t, file)
	e.refusesWhatRuns(t)

	out, asked, err = e.f2mesh(save...)
	require.NoError(t, err, out)
	t.Log(out)
	assert.Contains(t, asked, "stop")
	assert.Equal(t, ran, e.up(), "all of it runs again")
	assert.Equal(t, before, e.settled(t), "the control: a backup changes nothing")
	info, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	e.noSecretInLogs()
	e.restores(t, file, key, before)
}

// refusesWhatRuns: the files of servers that run are no backup.
func (e *engine) refusesWhatRuns(t *testing.T) {
	t.Helper()
	c := e.container("backup")
	c.Args = slices.Concat([]string{c.Args[0]}, e.project.Services["backup"].Entrypoint[1:], []string{"save"})
	var log logBuffer
	cmd, err := c.start(&log, &log, func(int) error { return nil })
	require.NoError(t, err)
	require.Error(t, cmd.Wait())
	assert.Contains(t, log.String(), "postgres runs")
}

// restores loads the backup where it must not be, and then where it may.
func (e *engine) restores(t *testing.T, file, key string, before census) {
	t.Helper()
	load := []string{"restore", "--compose=" + e.dir, "--from=" + file, "--passphrase-file=" + key}
	refused := func(because string, args ...string) {
		out, asked, err := e.f2mesh(args...)
		require.Error(t, err, because)
		assert.Contains(t, out, because)
		if because != "there is something in the volume" {
			assert.NotContains(t, asked, "run --rm --no-deps --no-TTY backup load")
		}
	}
	refused("there are containers already", load...)
	e.stopAll()
	was := e.running
	e.running = map[string]*service{} // docker compose down
	refused("there is something in the volume", load...)
	for name := range e.project.Volumes { // and with its volumes
		require.NoError(t, os.RemoveAll(e.volume(name)))
	}
	e.makeVolumes()
	require.NoError(t, os.Rename(filepath.Join(e.dir, "secrets"), filepath.Join(e.dir, "secrets.away")))
	require.NoError(t, os.Rename(filepath.Join(e.dir, ".env"), filepath.Join(e.dir, ".env.away")))
	refused("the key does not open this archive", "restore", "--compose="+e.dir, "--from="+file, "--passphrase-file="+passphrase(t, "another horse battery staple"))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	short := filepath.Join(t.TempDir(), "short.age")
	require.NoError(t, os.WriteFile(short, data[:len(data)-1], 0o600))
	refused("truncated", "restore", "--compose="+e.dir, "--from="+short, "--passphrase-file="+key)
	assert.NoDirExists(t, filepath.Join(e.dir, "secrets"))
	assert.Empty(t, entries(t, e.volume("postgres-data")))

	out, _, err := e.f2mesh(load...)
	require.NoError(t, err, out)
	t.Log(out)
	for _, secret := range known["provision"] {
		info, err := os.Stat(filepath.Join(e.dir, "secrets", secret+".txt"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}
	e.startRestored(t, was)
	assert.Equal(t, before, e.settled(t))
	e.start("simulator")
	e.readings()
}

// startRestored is docker compose up, where somebody opens Vault.
func (e *engine) startRestored(t *testing.T, was map[string]*service) {
	t.Helper()
	for _, name := range e.order() {
		if _, ran := was[name]; !ran || slices.Contains([]string{"vault-bootstrap", "demo", "simulator"}, name) {
			continue
		}
		e.start(name)
		if name == "vault" {
			e.vault(t, "operator", "unseal", e.unsealKey) // its data are those of before
		}
		if name == "init" && !hasTimescale(t) {
			withoutTimescale(t, e.volume("timescaledb-config"))
		}
	}
}

// census is what is to be the same before and after.
type census struct {
	Rows    int
	Streams map[string]streamCensus
	Devices string
}

type streamCensus struct {
	Messages int `json:"messages"`
	First    int `json:"first_seq"`
	Last     int `json:"last_seq"`
}

// settled counts when nothing is on its way any more.
func (e *engine) settled(t *testing.T) (last census) {
	t.Helper()
	e.await("writer", func() bool {
		now := e.census(t)
		same := assert.ObjectsAreEqual(last, now)
		last = now
		if !same {
			time.Sleep(2 * time.Second) // more than a batch of the writer's takes
		}
		return same
	})
	return last
}

// census asks the servers. What the health service goes on writing is not in it.
func (e *engine) census(t *testing.T) census {
	t.Helper()
	s := e.running["nats"]
	out, err := s.inside(s.cmd.Process.Pid, nil, "/bin/bash", "-c",
		`exec 3<>/dev/tcp/127.0.0.1/8222 && printf 'GET /jsz?accounts=true&streams=true HTTP/1.0\r\n\r\n' >&3 && /usr/bin/sed '1,/^\r$/d' <&3`)
	require.NoError(t, err, string(out))
	var server struct {
		Accounts []struct {
			Streams []struct {
				Name  string       `json:"name"`
				State streamCensus `json:"state"`
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	require.NoError(t, json.Unmarshal(out, &server), string(out))
	c := census{Rows: e.rows(), Streams: map[string]streamCensus{}}
	for _, a := range server.Accounts {
		for _, s := range a.Streams {
			if slices.Contains([]string{"RAW", "DECODED", "DEAD_LETTER"}, s.Name) {
				c.Streams[s.Name] = s.State
			}
		}
	}
	c.Devices, err = e.psql("postgres", "postgres_superuser_password", "host=localhost dbname=registry user=postgres sslrootcert=/etc/f2mesh/ca.crt", "TABLE device ORDER BY 1")
	require.NoError(t, err, c.Devices)
	return c
}

// passphrase writes one to a file.
func passphrase(t *testing.T, text string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "passphrase")
	require.NoError(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
	return file
}
