package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/operate/ledger"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// poll is how often the services of these tests look for new secrets.
const poll = 200 * time.Millisecond

// login is one service's way into one kind of server.
type login struct {
	service, secret, user string
	server                rotation.LoginServer
}

// logins are those of the mesh's services at its servers.
func (m *testMesh) logins(t *testing.T) []login {
	t.Helper()
	named := func(name string) func(context.Context) (string, string, error) {
		return func(ctx context.Context) (string, string, error) { return mesh.LogIn(ctx, m.State.SecretFiles(), name) }
	}
	servers := map[credential.Kind]rotation.LoginServer{
		credential.NATS:     natsserver.Admin{Dir: m.State.Path("nats"), URL: m.Nats.URL(), CAFile: m.Authority.CAFile(), Sys: named("nats_sys_password")},
		credential.MQTT:     mosquitto.Admin{Dir: m.State.Path("mosquitto"), Address: m.Address(m.Ports().MQTT), People: m.Address(m.Ports().People)},
		credential.Postgres: postgres.Admin{{DSN: m.DSN("postgres", "postgres"), Superuser: named(mesh.SecretSuperuser)}},
	}
	var all []login
	for _, c := range credential.All() {
		if c.Name == mesh.SecretReader {
			continue // the console has no session of it while nobody looks
		}
		for _, service := range c.Services {
			all = append(all, login{service: service, secret: c.Name, user: c.User, server: servers[c.Kind]})
		}
	}
	return all
}

func (l login) set(t *testing.T, user, password string) {
	t.Helper()
	require.NoError(t, l.server.SetPassword(t.Context(), user, password))
}

// accepts waits until the server lets the user in, or does not.
func (l login) accepts(t *testing.T, user, password string, want bool) {
	t.Helper()
	eventually(t, func() bool {
		in, err := l.server.LogIn(t.Context(), user, password)
		return err == nil && in == want
	}, "user %s of the %s", user, l.service)
}

// sessions waits until the user has some, or none. Mosquitto does not tell.
func (l login) sessions(t *testing.T, user string, want bool) {
	t.Helper()
	counter, ok := l.server.(interface {
		Sessions(ctx context.Context, user string) (int, error)
	})
	eventually(t, func() bool {
		if !ok {
			return true
		}
		n, err := counter.Sessions(t.Context(), user)
		return err == nil && (n > 0) == want
	}, "sessions of %s", user)
}

// status is what the service says of one of its secrets.
func (m *testMesh) status(t *testing.T, service, name string) (s secret.Status) {
	t.Helper()
	reply, err := m.js.Conn().Request(probe.SecretsSubject(service), nil, 500*time.Millisecond)
	if err != nil {
		return s // it is just logging in
	}
	var all []secret.Status
	require.NoError(t, json.Unmarshal(reply.Data, &all))
	for _, one := range all {
		if one.Name == name {
			return one
		}
	}
	return s
}

// moves waits until the service uses what put stores.
func (m *testMesh) moves(t *testing.T, l login, put func() error) (took time.Duration) {
	t.Helper()
	before := m.status(t, l.service, l.secret)
	require.NotEmpty(t, before.Version)
	started := time.Now()
	require.NoError(t, put())
	eventually(t, func() bool {
		s := m.status(t, l.service, l.secret)
		return s.Version != "" && s.Version != before.Version
	}, "%s does not take the new %s", l.service, l.secret)
	return time.Since(started)
}

// TestCredentialChange changes each credential of each service during traffic,
// to the other user and back, as a rotation does: let the other in, tell the
// service, lock the first out.
func TestCredentialChange(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = poll })
	for _, l := range m.logins(t) {
		t.Run(l.secret, func(t *testing.T) {
			proof := m.startProof(t)
			user, password := l.user, m.password(t, l.secret)
			for range 2 {
				l.accepts(t, user, password, true)
				nextUser, nextPassword := other(l.user, user), credential.Generate()
				l.set(t, nextUser, nextPassword)
				l.accepts(t, nextUser, nextPassword, true)
				took := m.moves(t, l, func() error { return m.State.SecretFiles().Put(l.secret, nextUser, nextPassword) })
				l.sessions(t, user, false)
				l.sessions(t, nextUser, true)
				l.set(t, user, "")
				l.accepts(t, user, password, false)
				t.Logf("%s uses the new %s after %s", l.service, l.secret, took.Round(time.Millisecond))
				user, password = nextUser, nextPassword
				proof.flows(t)
			}
			proof.finish(t)
			proof.onceOnly(t)
		})
	}
}

// TestCredentialRevoked locks the user out that a service uses. It finds the
// other one although it looks by itself only once an hour.
func TestCredentialRevoked(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = time.Hour })
	for _, l := range m.logins(t) {
		t.Run(l.secret, func(t *testing.T) {
			proof := m.startProof(t)
			before, nextUser, nextPassword := m.status(t, l.service, l.secret), other(l.user, l.user), credential.Generate()
			l.set(t, nextUser, nextPassword)
			require.NoError(t, m.State.SecretFiles().Put(l.secret, nextUser, nextPassword))
			time.Sleep(time.Second)
			require.Equal(t, before, m.status(t, l.service, l.secret), "the control: nobody has told it")
			l.sessions(t, nextUser, false)

			l.set(t, l.user, "")
			eventually(t, func() bool { return m.status(t, l.service, l.secret).Since.After(before.Since) }, "%s stays locked out", l.service)
			l.sessions(t, nextUser, true)
			proof.flows(t)
			if l.secret == mesh.SecretMQTTPassword {
				// Mosquitto 2.0 takes the ACL from a session together with the login,
				// and drops what is published until the next: the other user has to be
				// in use before, as in TestCredentialChange.
				proof.halt()
				return
			}
			proof.finish(t)
		})
	}
}

// TestDowngrade takes a secret away that a service uses.
func TestDowngrade(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = poll })
	alarms, err := m.js.Conn().SubscribeSync("f2.alarm.>")
	require.NoError(t, err)
	require.NoError(t, m.js.Conn().Flush())
	next := func() (a alarm.Alarm) {
		msg, err := alarms.NextMsg(20 * time.Second)
		require.NoError(t, err)
		require.Equal(t, "f2.alarm.bridge.secret_downgraded", msg.Subject)
		require.NoError(t, json.Unmarshal(msg.Data, &a))
		return a
	}
	downgraded := func() float64 { return m.Figures()["f2mesh_secret_downgraded"] }
	require.Zero(t, downgraded())

	proof, file, aside := m.startProof(t), m.State.Path("secrets", mesh.SecretMQTTPassword), m.State.Path("aside")
	require.NoError(t, os.Rename(file, aside))
	raised := next()
	assert.True(t, raised.Raised)
	assert.Equal(t, mesh.SecretMQTTPassword, raised.Subject)
	assert.NotEmpty(t, raised.Detail)
	assert.InDelta(t, 1, downgraded(), 0)
	assert.True(t, m.status(t, "bridge", mesh.SecretMQTTPassword).Downgraded)
	proof.flows(t)

	require.NoError(t, os.Rename(aside, file))
	cleared := next()
	assert.False(t, cleared.Raised)
	assert.True(t, raised.Since.Equal(cleared.Since), "it is the same alarm")
	assert.Zero(t, downgraded())
	_, err = alarms.NextMsg(time.Second)
	require.ErrorIs(t, err, nats.ErrTimeout, "each is told once")
	proof.finish(t)
	proof.onceOnly(t)
}

// TestVaultLive has the services' secrets in Vault, replaces each by hand, and
// seals Vault during traffic.
func TestVaultLive(t *testing.T) {
	t.Parallel()
	server := vaulttest.StartFile(t)
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = poll })
	cfg := server.Config(m.State.Path("vault"))
	bootstrap := vault.Bootstrap{
		Config: cfg, SecretsDir: m.State.SecretsDir(), Report: func(vault.Step) {},
		Roles: vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: time.Hour, WrapTTL: time.Hour},
	}
	require.NoError(t, bootstrap.Run(t.Context(), server.Root))
	parts := []string{local.PartKeeper, local.PartBridge, local.PartDecoder, local.PartWriter, local.PartRegistrar, local.PartHealth, local.PartAlarm}
	for _, part := range parts {
		require.NoError(t, m.Stop(part))
	}
	m.Cfg.Secrets.Config = cfg
	for _, part := range parts {
		require.NoError(t, m.Start(t.Context(), part))
	}
	operator, err := vault.OpenToken(cfg, server.Root, m.Log)
	require.NoError(t, err)
	t.Cleanup(operator.Close)
	proof, logins := m.startProof(t), m.logins(t)
	for _, l := range logins {
		require.Equal(t, "vault", m.status(t, l.service, l.secret).Source)
		user, password := other(l.user, l.user), credential.Generate()
		l.set(t, user, password)
		l.accepts(t, user, password, true)
		took := m.moves(t, l, func() error {
			_, err := operator.Put(t.Context(), l.secret, secret.NewValue(password, "", "").WithUsername(user), 1)
			return err
		})
		assert.Equal(t, "2", m.status(t, l.service, l.secret).Version)
		l.sessions(t, l.user, false)
		l.sessions(t, user, true)
		t.Logf("%s uses version 2 of %s after %s", l.service, l.secret, took.Round(time.Millisecond))
	}
	proof.flows(t)

	downgraded := func() float64 { return m.Figures()["f2mesh_secret_downgraded"] }
	require.Zero(t, downgraded(), "the control")
	server.Seal()
	eventually(t, func() bool { return downgraded() >= float64(len(logins)) }, "no downgrade is told")
	proof.flows(t)
	server.Unseal()
	eventually(t, func() bool { return downgraded() == 0 }, "the downgrade is not over")
	proof.flows(t)
	proof.finish(t)
	proof.onceOnly(t)
}

func other(first, user string) string {
	if user == first {
		return credential.Alternate(first)
	}
	return first
}

func (m *testMesh) password(t *testing.T, name string) string {
	t.Helper()
	v, err := secret.Files(m.State.SecretsDir()).Lookup(t.Context(), name)
	require.NoError(t, err)
	return v.Reveal()
}

// proof is traffic and what shows that it all arrived, once.
type proof struct {
	m      *testMesh
	tr     *traffic
	start  time.Time
	events int                // in the table before
	before map[string]float64 // the services' figures
	sent   atomic.Int64
	stop   chan struct{}
	done   sync.WaitGroup
	gap    time.Duration // the longest without a commit
	report *ledger.Report
}

// startProof publishes readings, which have a timestamp and so an id of their own,
// and events without one, of which a second copy would be a second row.
func (m *testMesh) startProof(t *testing.T) *proof {
	t.Helper()
	m.settled(t)
	p := &proof{
		m: m, start: time.Now(), stop: make(chan struct{}), before: m.Figures(),
		events: m.count(t, "SELECT count(*) FROM device_event"),
	}
	client := m.device(t, mac)
	p.tr = startTraffic(t, client)
	p.done.Go(func() {
		for !p.stopped(5 * time.Millisecond) {
			publish(t, client, "tele/f2-"+string(mac)+"/alarm-mode/J3/motion-sensor-1", `{"status":true}`)
			p.sent.Add(1)
		}
	})
	p.done.Go(func() { p.watch(t) })
	p.flows(t)
	return p
}

func (p *proof) stopped(wait time.Duration) bool {
	select {
	case <-p.stop:
		return true
	case <-time.After(wait):
		return false
	}
}

// watch measures the longest time without a commit.
func (p *proof) watch(t *testing.T) { //nolint:thelper // a part of the test's own
	last, at := 0, time.Now()
	for !p.stopped(5 * time.Millisecond) {
		var rows int
		if p.m.rows.QueryRow(t.Context(), "SELECT count(*) FROM measurement").Scan(&rows) != nil {
			return
		}
		if rows != last {
			p.gap = max(p.gap, time.Since(at))
			last, at = rows, time.Now()
		}
	}
}

// flows waits until what is published now arrives.
func (p *proof) flows(t *testing.T) {
	t.Helper()
	rows := func() int { return p.m.count(t, "SELECT count(*) FROM measurement") }
	before := rows()
	eventually(t, func() bool { return rows() > before+100 }, "nothing is written")
}

// halt stops the traffic.
func (p *proof) halt() {
	close(p.stop)
	p.tr.stop()
	p.tr.done.Wait()
	p.done.Wait()
}

// finish stops the traffic and has the ledger say what became of it.
func (p *proof) finish(t *testing.T) {
	t.Helper()
	p.halt()
	p.tr.finish(t, p.m)
	p.m.settled(t)
	report, err := ledger.Audit(t.Context(), p.m.js, p.m.rows, ledger.Options{Since: p.start})
	require.NoError(t, err)
	text := new(strings.Builder)
	_, err = report.WriteTo(text)
	require.NoError(t, err)
	require.True(t, report.Balanced(), text.String())
	assert.Zero(t, report.Total.Pending, text.String())
	p.report = report
	t.Logf("%d messages, longest gap in commits %s", report.Total.Received, p.gap.Round(time.Millisecond))
}

// onceOnly requires that each message is one row. How often something was sent, stored or
// delivered again for that is only logged: a commit or an acknowledgement whose outcome is
// unknown is repeated (design 5.2), on a loaded machine or while nats-server reloads.
func (p *proof) onceOnly(t *testing.T) {
	t.Helper()
	sent := int(p.sent.Load())
	assert.EqualValues(t, p.tr.count()+sent, p.report.Total.Received)
	assert.Equal(t, sent, p.m.count(t, "SELECT count(*) FROM device_event")-p.events, "each event is one row")
	figures := p.m.Figures()
	for _, name := range []string{"bridge_messages_duplicate_total", "decoder_messages_duplicate_total", "writer_rows_duplicate_total"} {
		if again := figures["f2mesh_"+name] - p.before["f2mesh_"+name]; again > 0 {
			t.Logf("%s: %.0f", name, again)
		}
	}
}
