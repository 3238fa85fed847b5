package main

import (
	"encoding/json"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/alarm"
	"github.com/f2mesh/f2mesh/pkg/credential"
	"github.com/f2mesh/f2mesh/pkg/health"
	"github.com/f2mesh/f2mesh/pkg/ledger"
	"github.com/f2mesh/f2mesh/pkg/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/natsserver"
	"github.com/f2mesh/f2mesh/pkg/postgres"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// poll is how often the services of these tests look for new secrets.
const poll = 200 * time.Millisecond

// login is how one kind of server is changed and asked, for one service.
type login struct {
	service, secret, user string
	// set gives a user a password, "" for none.
	set func(user, password string)
	// accepts tells whether the server lets a user in.
	accepts func(user, password string) bool
	// sessions counts the user's.
	sessions func(user string) int
}

// logins are those of the mesh's services at its servers.
func (m *testMesh) logins(t *testing.T) []login {
	t.Helper()
	admin := m.natsAdmin(t)
	superuser, err := m.superuser(t.Context(), "postgres")
	require.NoError(t, err)
	t.Cleanup(func() { _ = superuser.Close(t.Context()) }) //nolint:usetesting // the test's context has ended by then, which closes it too
	var all []login
	for _, c := range credential.All() {
		for _, service := range c.Services {
			l := login{service: service, secret: c.Secret, user: c.User}
			switch c.Kind {
			case credential.NATS:
				m.natsLogin(t, &l, admin)
			case credential.MQTT:
				m.mqttLogin(t, &l)
			case credential.Postgres:
				m.postgresLogin(t, &l, superuser)
			}
			all = append(all, l)
		}
	}
	return all
}

func (m *testMesh) natsAdmin(t *testing.T) natsserver.Admin {
	t.Helper()
	nc, err := nats.Connect(m.nats.URL(), nats.RootCAs(m.authority.CAFile()), nats.UserInfo(natsserver.Sys, m.passwords[natsserver.Sys]),
		nats.CustomInboxPrefix(natsserver.InboxPrefix(natsserver.Sys)))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return natsserver.Admin{Dir: m.state.path("nats"), Conn: nc}
}

func (m *testMesh) natsLogin(t *testing.T, l *login, admin natsserver.Admin) { //nolint:thelper // the closures are the test's
	l.set = func(user, password string) { require.NoError(t, admin.SetPassword(t.Context(), user, password)) }
	l.accepts = func(user, password string) bool {
		nc, err := nats.Connect(m.nats.URL(), nats.RootCAs(m.authority.CAFile()), nats.UserInfo(user, password))
		if err == nil {
			nc.Close()
		}
		return err == nil
	}
	l.sessions = func(user string) int {
		n, err := admin.Sessions(t.Context(), user)
		require.NoError(t, err)
		return n
	}
}

func (m *testMesh) mqttLogin(t *testing.T, l *login) { //nolint:thelper // the closures are the test's
	l.set = func(user, password string) {
		require.NoError(t, mosquitto.SetPassword(m.state.path("mosquitto"), user, password))
	}
	l.accepts = func(user, password string) bool {
		return mosquitto.LogIn(t.Context(), m.address(m.ports().MQTT), user, password) == nil
	}
	l.sessions = func(string) int { return -1 } // Mosquitto does not tell
}

func (m *testMesh) postgresLogin(t *testing.T, l *login, superuser *pgx.Conn) { //nolint:thelper // the closures are the test's
	require.NoError(t, postgres.EnsureRole(t.Context(), superuser, l.user))
	l.set = func(user, password string) {
		require.NoError(t, postgres.SetPassword(t.Context(), superuser, user, password))
	}
	l.accepts = func(user, password string) bool {
		conn, err := connectPostgres(t.Context(), m.dsn(user, databaseMetadata), password)
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err == nil
	}
	l.sessions = func(user string) int {
		n, err := postgres.Sessions(t.Context(), superuser, user)
		require.NoError(t, err)
		return n
	}
}

// status is what the service says of one of its secrets.
func (m *testMesh) status(t *testing.T, service, name string) (s secret.Status) {
	t.Helper()
	reply, err := m.js.Conn().Request(health.SecretsSubject(service), nil, 500*time.Millisecond)
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

// put replaces a secret file and waits until the service uses what it holds.
func (m *testMesh) put(t *testing.T, l login, user, password string) (took time.Duration) {
	t.Helper()
	before := m.status(t, l.service, l.secret)
	require.NotEmpty(t, before.Version)
	started := time.Now()
	require.NoError(t, credential.Files(m.state.secrets()).Put(l.secret, user, password))
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
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = poll })
	for _, l := range m.logins(t) {
		t.Run(l.secret, func(t *testing.T) {
			proof := m.startProof(t)
			user, password := l.user, m.password(t, l.secret)
			require.True(t, l.accepts(user, password), "the control")
			for range 4 {
				nextUser, nextPassword := other(l.user, user), credential.Generate()
				l.set(nextUser, nextPassword)
				eventually(t, func() bool { return l.accepts(nextUser, nextPassword) }, "%s does not get in", nextUser)
				took := m.put(t, l, nextUser, nextPassword)
				eventually(t, func() bool { return l.sessions(user) <= 0 }, "%s keeps sessions of %s", l.service, user)
				eventually(t, func() bool { return l.sessions(nextUser) != 0 }, "%s does not log in as %s", l.service, nextUser)
				l.set(user, "")
				eventually(t, func() bool { return !l.accepts(user, password) }, "%s still gets in", user)
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
	m := startMesh(t, func(c *meshConfig) { c.Secrets.SecretPoll = time.Hour })
	for _, l := range m.logins(t) {
		t.Run(l.secret, func(t *testing.T) {
			proof := m.startProof(t)
			before, nextUser, nextPassword := m.status(t, l.service, l.secret), other(l.user, l.user), credential.Generate()
			l.set(nextUser, nextPassword)
			require.NoError(t, credential.Files(m.state.secrets()).Put(l.secret, nextUser, nextPassword))
			time.Sleep(time.Second)
			require.Equal(t, before, m.status(t, l.service, l.secret), "the control: nobody has told it")
			require.LessOrEqual(t, l.sessions(nextUser), 0, "the control")

			l.set(l.user, "")
			eventually(t, func() bool { return m.status(t, l.service, l.secret).Since.After(before.Since) }, "%s stays locked out", l.service)
			eventually(t, func() bool { return l.sessions(nextUser) != 0 }, "%s does not log in as %s", l.service, nextUser)
			proof.flows(t)
			if l.secret == secretMQTTPassword {
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
	downgraded := func() float64 { return m.figures()["f2mesh_secret_downgraded"] }
	require.Zero(t, downgraded())

	proof, file, aside := m.startProof(t), m.state.path("secrets", secretMQTTPassword), m.state.path("aside")
	require.NoError(t, os.Rename(file, aside))
	raised := next()
	assert.True(t, raised.Raised)
	assert.Equal(t, secretMQTTPassword, raised.Subject)
	assert.NotEmpty(t, raised.Detail)
	assert.InDelta(t, 1, downgraded(), 0)
	assert.True(t, m.status(t, "bridge", secretMQTTPassword).Downgraded)
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

func other(first, user string) string {
	if user == first {
		return credential.Alternate(first)
	}
	return first
}

func (m *testMesh) password(t *testing.T, name string) string {
	t.Helper()
	v, err := secret.Files(m.state.secrets()).Lookup(t.Context(), name)
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
		m: m, start: time.Now(), stop: make(chan struct{}), before: m.figures(),
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

// onceOnly requires that nothing had to be sent, stored or delivered again: as
// when the services are left alone.
func (p *proof) onceOnly(t *testing.T) {
	t.Helper()
	for _, s := range p.report.Stages {
		assert.Zero(t, s.Duplicates, s.Name)
	}
	sent := int(p.sent.Load())
	assert.EqualValues(t, p.tr.count()+sent, p.report.Total.Received)
	assert.Equal(t, sent, p.m.count(t, "SELECT count(*) FROM device_event")-p.events, "each event is one row")
	figures := p.m.figures()
	for _, name := range []string{"bridge_messages_duplicate_total", "decoder_messages_duplicate_total", "writer_rows_duplicate_total"} {
		assert.Zero(t, figures["f2mesh_"+name]-p.before["f2mesh_"+name], name)
	}
}
