package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/simulator"
)

// quickPoll lets services find a new secret within moments.
func quickPoll(c *meshConfig) { c.Secrets.SecretPoll = 200 * time.Millisecond }

// rotator is what `f2mesh secret rotate` works with.
func (m *testMesh) rotator(t *testing.T) *mesh.Rotator {
	t.Helper()
	r := &mesh.Rotator{State: m.State, Running: m.Describe(), Keeper: m.Secrets, Log: m.Log}
	require.NoError(t, r.Connect(t.Context()))
	t.Cleanup(r.Stop)
	r.Record = func(ctx context.Context, result rotation.Rotated, failure error) error {
		return registrar.RecordRotation(ctx, r.Nc, result, failure, m.Log)
	}
	return r
}

// lives tells which of a credential's users may log in with what is stored, or
// with the password that they had before.
func lives(t *testing.T, r *mesh.Rotator, c credential.Credential, before string) (users []string) {
	t.Helper()
	_, stored, err := mesh.LogIn(t.Context(), r.Keeper, c.Name)
	require.NoError(t, err)
	for _, user := range []string{c.User, c.Other(c.User)} {
		for _, password := range []string{stored, before} {
			if in, err := r.Server(c).LogIn(t.Context(), user, password); err == nil && in {
				users = append(users, user)
				break
			}
		}
	}
	return users
}

// rotated requires a rotation to have ended well: one user, with a new password,
// on which the services are.
func rotated(t *testing.T, r *mesh.Rotator, c credential.Credential, before string) {
	t.Helper()
	user, password, err := mesh.LogIn(t.Context(), r.Keeper, c.Name)
	require.NoError(t, err)
	assert.NotEqual(t, before, password, c.Name)
	assert.Equal(t, []string{user}, lives(t, r, c, before), c.Name)
	v, err := r.Keeper.Lookup(t.Context(), c.Name)
	require.NoError(t, err)
	for _, service := range c.Services {
		all, err := mesh.Services{Conn: r.Nc}.Status(t.Context(), service, c.Name)
		require.NoError(t, err)
		require.Len(t, all, 1, service)
		assert.Equal(t, v.Version(), all[0].Version, service)
	}
}

// TestRotateAll rotates every credential during traffic, twice, so that each of
// the two users has had its turn, and starts the servers anew on what is stored.
func TestRotateAll(t *testing.T) {
	t.Parallel()
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	tr := startTraffic(t, m.device(t, mac))
	for range 2 {
		for _, c := range credential.All() {
			_, before, err := mesh.LogIn(t.Context(), r.Keeper, c.Name)
			require.NoError(t, err)
			report, err := r.Run(t.Context(), r.Config(t.Context(), c))
			require.NoError(t, err, c.Name)
			t.Log(report)
			require.NoError(t, r.Connected(t.Context()))
			rotated(t, r, c, before)
		}
		for _, name := range []string{local.PartNATS, local.PartPostgres, local.PartPgBouncer, local.PartMosquitto} {
			require.NoError(t, m.Stop(name))
			require.NoError(t, m.Start(t.Context(), name))
		}
		require.NoError(t, r.Connected(t.Context()))
	}
	m.reconnectReaders(t)
	tr.finish(t, m)
}

// reconnectReaders waits for the test's own connection, whose store nobody runs.
func (m *testMesh) reconnectReaders(t *testing.T) {
	t.Helper()
	m.js.Conn().Close()
	m.rows.Close()
	m.openReaders(t)
}

// TestRotationBrokenOff ends a rotation of each kind behind every step, as a crash
// would, and requires the next one to complete it during traffic.
func TestRotationBrokenOff(t *testing.T) {
	t.Parallel()
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	tr := startTraffic(t, m.device(t, mac))
	crash := errors.New("crash")
	for _, name := range []string{"mqtt_password", "nats_decoder_password", "timescale_password", mesh.SecretPgBouncer} {
		c, _ := credential.Find(name)
		for _, last := range []string{"grant", "verify", "store", "wait", "retire"} {
			_, before, err := mesh.LogIn(t.Context(), r.Keeper, name)
			require.NoError(t, err)
			cfg := r.Config(t.Context(), c)
			cfg.Done = func(step string) error {
				if step == last {
					return crash
				}
				return nil
			}
			_, err = rotation.Run(t.Context(), cfg)
			require.ErrorIs(t, err, crash)
			result, err := rotation.Run(t.Context(), r.Config(t.Context(), c))
			require.NoError(t, err, "%s behind %s", name, last)
			assert.Equal(t, last != "grant" && last != "verify", result.Resumed)
			rotated(t, r, c, before)
		}
	}
	// Whoever logs in through the pooler now is looked up with what is stored.
	require.NoError(t, m.Stop(local.PartWriter))
	require.NoError(t, m.Start(t.Context(), local.PartWriter))
	tr.finish(t, m)
}

// TestRotationWaitsForEveryInstance has a second writer, which looks for secrets
// less often: the old credential stays until it has moved too.
func TestRotationWaitsForEveryInstance(t *testing.T) {
	t.Setenv("F2MESH_SECRET_POLL", "2s")
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	p := m.startProcess(t, local.PartWriter)
	for _, name := range []string{"timescale_password", "nats_writer_password"} {
		c, _ := credential.Find(name)
		eventually(t, func() bool {
			all, err := mesh.Services{Conn: r.Nc}.Status(t.Context(), local.PartWriter, name)
			return err == nil && len(all) == 2
		}, "not two writers")
		_, err := rotation.Run(t.Context(), r.Config(t.Context(), c))
		require.NoError(t, err)
		v, err := r.Keeper.Lookup(t.Context(), name)
		require.NoError(t, err)
		all, err := mesh.Services{Conn: r.Nc}.Status(t.Context(), local.PartWriter, name)
		require.NoError(t, err)
		require.Len(t, all, 2)
		for _, s := range all {
			assert.Equal(t, v.Version(), s.Version)
		}
	}
	require.NoError(t, p.Process.Signal(os.Interrupt))
	require.NoError(t, p.Wait())
}

// setting is an environment variable of the full runs that CONTRIBUTING.md names.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

// TestRotationsUnderLoad rotates the credentials of all data's way again and again
// while a fleet sends, and requires every message to be in the tables once.
// F2MESH_ROTATIONS=20 F2MESH_RATE=2000 is the full run, with a bound of a second
// for the longest time without a commit. The everyday run has few and a loose bound.
func TestRotationsUnderLoad(t *testing.T) {
	rotations, rate := setting(t, "F2MESH_ROTATIONS", 2), setting(t, "F2MESH_RATE", 300)
	bound := 10 * time.Second
	if os.Getenv("F2MESH_ROTATIONS") != "" {
		bound = time.Second
	}
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	fleet := m.startFleet(t, rate)
	gaps := m.watchCommits()
	for n := range rotations {
		for _, name := range []string{"timescale_password", "mqtt_password", "nats_bridge_password", "nats_decoder_password", "nats_writer_password"} {
			c, _ := credential.Find(name)
			began := time.Now()
			result, err := rotation.Run(t.Context(), r.Config(t.Context(), c))
			require.NoError(t, err)
			longest := gaps.since(began)
			t.Logf("%2d %-22s %s, longest time without a commit %s", n+1, name, result.Took.Round(time.Millisecond), longest.Round(time.Millisecond))
			assert.Less(t, longest, bound, name)
		}
	}
	sent := fleet.finish(t)
	m.settled(t)
	longest := gaps.stop()
	report := m.audit(t)
	t.Logf("%d messages acknowledged, %d received, %d copies dropped in %d rotations; longest time without a commit %s",
		sent, report.Total.Received, report.Total.Copies, 5*rotations, longest.Round(time.Millisecond))
	assert.True(t, report.Balanced(), "nothing is lost: %+v", report.Total)
	assert.EqualValues(t, sent, report.Total.Received-report.Total.Copies, "every acknowledged message was received once")
	assert.Zero(t, report.Total.DeadLettered)
	assert.Equal(t, m.count(t, "SELECT count(*) FROM measurement"), m.count(t, "SELECT count(DISTINCT (device_id, datapoint_id, time)) FROM measurement"))
}

// TestRetiringTooEarlyStalls is the control of TestRotationsUnderLoad: the old
// credential is retired before the service has another, and it must show. A
// rotation fixes it.
func TestRetiringTooEarlyStalls(t *testing.T) {
	const outage = 2 * time.Second
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	fleet := m.startFleet(t, 200)
	gaps := m.watchCommits()
	c, _ := credential.Find("timescale_password")
	user, _, err := mesh.LogIn(t.Context(), r.Keeper, c.Name)
	require.NoError(t, err)
	began := time.Now()
	require.NoError(t, r.Server(c).SetPassword(t.Context(), user, ""))
	time.Sleep(outage)
	_, err = rotation.Run(t.Context(), r.Config(t.Context(), c))
	require.NoError(t, err)
	sent := fleet.finish(t)
	m.settled(t)
	assert.GreaterOrEqual(t, gaps.since(began), outage-200*time.Millisecond)
	gaps.stop()
	report := m.audit(t)
	assert.True(t, report.Balanced())
	assert.EqualValues(t, sent, report.Total.Received-report.Total.Copies, "not even that loses a message")
}

func (m *testMesh) audit(t *testing.T) *ledger.Report {
	t.Helper()
	conn, err := mesh.ConnectPostgres(t.Context(), m.DSN("", mesh.DatabaseTelemetry), m.Secrets, mesh.SecretReader)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	js, err := jetstream.New(m.js.Conn())
	require.NoError(t, err)
	report, err := ledger.Audit(t.Context(), js, conn, ledger.Options{})
	require.NoError(t, err)
	return report
}

// simulatedFleet is the demo fleet at a rate.
type simulatedFleet struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	report simulator.Totals
	err    error
}

func (m *testMesh) startFleet(t *testing.T, rate int) *simulatedFleet {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	f := &simulatedFleet{stop: stop}
	cfg := simulator.Config{
		Broker: "ssl://" + m.Address(m.Ports().MQTTTLS), CAFile: m.Authority.CAFile(), Devices: m.State.DevicesDir(),
		Rate: rate, Seed: 1,
	}
	controllers := fleet.Demo(m.Cfg.Controllers)
	f.done.Go(func() { f.report, f.err = simulator.New(cfg, controllers, m.Log).Run(ctx) })
	eventually(t, func() bool { return m.Figures()[mesh.FigureOut] > float64(rate) }, "no traffic")
	return f
}

// finish answers how many messages the broker has acknowledged.
func (f *simulatedFleet) finish(t *testing.T) int64 {
	t.Helper()
	f.stop()
	f.done.Wait()
	require.NoError(t, f.err)
	require.Zero(t, f.report.Unacknowledged)
	return f.report.Acknowledged
}

// commits notes when the writer commits.
type commits struct {
	end  chan struct{}
	done sync.WaitGroup
	mu   sync.Mutex
	at   []time.Time
}

func (m *testMesh) watchCommits() *commits {
	c := &commits{end: make(chan struct{}), at: []time.Time{time.Now()}}
	ticker := time.NewTicker(5 * time.Millisecond)
	c.done.Go(func() {
		defer ticker.Stop()
		last := 0.0
		for {
			select {
			case <-c.end:
				return
			case now := <-ticker.C:
				if committed := m.Figures()[mesh.FigureOut]; committed != last {
					last = committed
					c.mu.Lock()
					c.at = append(c.at, now)
					c.mu.Unlock()
				}
			}
		}
	})
	return c
}

// since answers the longest time between two commits since then, and up to now.
func (c *commits) since(then time.Time) (longest time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, at := range c.at[1:] {
		if at.After(then) {
			longest = max(longest, at.Sub(c.at[i]))
		}
	}
	return max(longest, time.Since(c.at[len(c.at)-1]))
}

// stop answers the longest time between two commits of all.
func (c *commits) stop() (longest time.Duration) {
	close(c.end)
	c.done.Wait()
	for i, at := range c.at[1:] {
		longest = max(longest, at.Sub(c.at[i]))
	}
	return longest
}

// The files that people's tools read follow a rotation.
func TestToolsFollowARotation(t *testing.T) {
	t.Parallel()
	m := startMesh(t, quickPoll)
	r := m.rotator(t)
	for _, name := range []string{mesh.SecretReader, mesh.SecretMQTTOperator, "nats_operator_password"} {
		c, _ := credential.Find(name)
		_, err := rotation.Run(t.Context(), r.Config(t.Context(), c))
		require.NoError(t, err)
	}
	for path, want := range map[string]string{
		m.State.Passfile():         mesh.RoleReader + "_b:",
		m.State.NATSContext():      `"user": "operator_b"`,
		m.State.OperatorPassword(): "",
	} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Contains(t, string(text), want)
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), filepath.Base(path))
	}
	text, err := os.ReadFile(m.State.OperatorPassword())
	require.NoError(t, err)
	_, password, err := mesh.LogIn(t.Context(), r.Keeper, mesh.SecretMQTTOperator)
	require.NoError(t, err)
	assert.Equal(t, password, string(text), "the password alone")
}
