package compose

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// backups saves the mesh while it runs, and makes one of the backup where there is nothing left.
func (e *engine) backups(t *testing.T) {
	t.Helper()
	key := passphrase(t, "correct horse battery staple")
	file := filepath.Join(t.TempDir(), "mesh.age")
	save := []string{"backup", "--compose=" + e.dir, "--to=" + file, "--passphrase-file=" + key}
	out, asked, err := e.f2mesh(append(save, "--dry-run")...)
	require.NoError(t, err, out)
	require.NoFileExists(t, file)

	processes, rows := e.processes(), e.rows()
	out, _, err = e.f2mesh(save...) // while controllers send
	require.NoError(t, err, out)
	t.Log(out)
	assert.Equal(t, processes, e.processes(), "nothing was stopped")
	e.await("writer", func() bool { return e.rows() > rows })
	e.stoodStill(t, out)
	e.noSecretIn(out, strings.Join(asked, "\n"))
	e.refusesIncomplete(t, save)

	require.True(t, e.stop("simulator")) // what is counted is to stay
	before := e.settled(t)
	require.NotZero(t, before.Rows)
	require.NotZero(t, before.Streams["RAW"].Messages)
	second := filepath.Join(t.TempDir(), "mesh.age")
	out, _, err = e.f2mesh("backup", "--compose="+e.dir, "--to="+second, "--passphrase-file="+key)
	require.NoError(t, err, out)
	assert.Equal(t, before, e.settled(t), "the control: a backup changes nothing")
	info, err := os.Stat(second)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	e.noSecretInLogs()
	e.restores(t, second, key, before)
}

// stoodStill reads what a backup says of the consumers.
func (e *engine) stoodStill(t *testing.T, out string) {
	t.Helper()
	found := regexp.MustCompile(`stood still for (\S+)`).FindAllStringSubmatch(out, -1)
	require.NotEmpty(t, found, out)
	for _, one := range found {
		took, err := time.ParseDuration(one[1])
		require.NoError(t, err)
		assert.Less(t, took, 30*time.Second)
	}
}

// refusesIncomplete: an archive of which the end is missing gets no name.
func (e *engine) refusesIncomplete(t *testing.T, save []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "short.age")
	save = slices.Clone(save)
	save[2] = "--to=" + file
	e.cut = true
	out, _, err := e.f2mesh(save...)
	e.cut = false
	require.Error(t, err)
	assert.Contains(t, out, "not complete")
	assert.Empty(t, entries(t, filepath.Dir(file)))
}

// restores loads the backup where it must not be, and then where it may.
func (e *engine) restores(t *testing.T, file, key string, before census) {
	t.Helper()
	load := []string{"restore", "--compose=" + e.dir, "--from=" + file, "--passphrase-file=" + key}
	refused := func(because string, args ...string) {
		out, asked, err := e.f2mesh(args...)
		require.Error(t, err, because)
		assert.Contains(t, out, because)
		assert.NotContains(t, strings.Join(asked, "\n"), "up --no-deps", because)
	}
	refused("there are containers already", load...)
	e.stopAll()
	was := e.running
	e.running = map[string]*service{} // docker compose down
	refused("move secrets/ and .env away", load...)
	require.NoError(t, os.Rename(filepath.Join(e.dir, "secrets"), filepath.Join(e.dir, "secrets.away")))
	require.NoError(t, os.Rename(filepath.Join(e.dir, ".env"), filepath.Join(e.dir, ".env.away")))
	refused("there is something in the volume", load...)
	e.removeVolumes(t)
	refused("the key does not open this archive", "restore", "--compose="+e.dir, "--from="+file, "--passphrase-file="+passphrase(t, "another horse battery staple"))
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	short := filepath.Join(t.TempDir(), "short.age")
	require.NoError(t, os.WriteFile(short, data[:len(data)-1], 0o600))
	refused("truncated", "restore", "--compose="+e.dir, "--from="+short, "--passphrase-file="+key)
	assert.NoDirExists(t, filepath.Join(e.dir, "secrets"))
	assert.Empty(t, entries(t, e.volume("postgres-data")))
	e.brokenOff(t, load)

	out, asked, err := e.f2mesh(load...)
	require.NoError(t, err, out)
	t.Log(out)
	e.noSecretIn(out, strings.Join(asked, "\n"))
	for _, secret := range known["provision"] {
		info, err := os.Stat(filepath.Join(e.dir, "secrets", secret+".txt"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode())
	}
	assert.Empty(t, e.running, "it is left stopped")
	e.startRestored(t, was)
	assert.Equal(t, before, e.settled(t))
	e.start("simulator")
	e.readings()
	out, err = e.operator("audit", "--wait", "1m")
	require.NoError(t, err, out)
}

// brokenOff: what a restore left that was broken off does not start, and another restore begins anew.
func (e *engine) brokenOff(t *testing.T, load []string) {
	t.Helper()
	e.failUp = true
	out, _, err := e.f2mesh(load...)
	e.failUp = false
	require.Error(t, err)
	t.Log(out)
	assert.Empty(t, e.running)
	require.NoError(t, os.Rename(filepath.Join(e.dir, "secrets.away"), filepath.Join(e.dir, "secrets")))
	for _, name := range []string{"init", "provision"} {
		c := e.command(name, name)
		var log logBuffer
		cmd, err := c.start(&log, &log, e.connect(name))
		require.NoError(t, err)
		require.Error(t, cmd.Wait(), name)
		assert.Contains(t, log.String(), "broken off", name)
	}
	require.NoError(t, os.Rename(filepath.Join(e.dir, "secrets"), filepath.Join(e.dir, "secrets.away")))
}

// removeVolumes is docker compose down --volumes, and that they are made again.
func (e *engine) removeVolumes(t *testing.T) {
	t.Helper()
	for name := range e.project.Volumes {
		require.NoError(t, os.RemoveAll(e.volume(name)))
	}
	e.makeVolumes()
}

// startRestored is docker compose up. Vault is empty, as its data are in no backup: the services use the files.
func (e *engine) startRestored(t *testing.T, was map[string]*service) {
	t.Helper()
	for _, name := range e.order() {
		if _, ran := was[name]; !ran || slices.Contains([]string{"vault-bootstrap", "demo", "simulator"}, name) {
			continue
		}
		e.start(name)
		if name == "init" && !hasTimescale(e.t) {
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
	super := e.secretFile(t, "postgres_superuser_password")
	c.Devices, err = e.psqlBy("postgres", super.password, "host=localhost dbname=registry user="+super.name("postgres")+" sslrootcert=/etc/f2mesh/ca.crt", "TABLE device ORDER BY 1")
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
