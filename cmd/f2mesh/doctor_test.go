package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// examined is a mesh that logs to its file, and what the doctor knows of it.
func examined(t *testing.T, change ...func(*meshConfig)) (*testMesh, *doctor.Target) {
	t.Helper()
	log := &book{}
	m := startMeshLogging(t, slog.New(slog.NewTextHandler(log, nil)), change...)
	file, err := os.OpenFile(m.State.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	log.tee(t, file)
	return m, mesh.DoctorTarget(m.State, m.Describe(), m.Secrets.LogIn)
}

// tee copies what comes, and what has come, to a file as well.
func (b *book) tee(t *testing.T, file *os.File) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	_, err := file.Write(b.buf.Bytes())
	require.NoError(t, err)
	b.file = file
}

// find runs one check.
func find(t *testing.T, m *doctor.Target, name string) doctor.CheckResult {
	t.Helper()
	results, err := doctor.Run(t.Context(), m, name)
	require.NoError(t, err)
	require.Len(t, results, 1)
	return results[0]
}

// TestDoctor has all green on a fresh mesh, but for what says why it is not.
func TestDoctor(t *testing.T) {
	t.Parallel()
	_, patient := examined(t, func(cfg *meshConfig) { cfg.Pooling = true })
	require.NotZero(t, patient.Ports.PgBouncer)
	results, err := doctor.Run(t.Context(), patient)
	require.NoError(t, err)
	require.Len(t, results, len(doctor.Checks()))
	for _, r := range results {
		t.Log(r.State, r.Name, r.Seen)
		switch r.Name {
		case "tls-root-key":
			assert.Equal(t, doctor.Warning, r.State, r.Seen) // a fresh mesh has it until somebody takes it away
		case "process-users", "loss-broker-version":
			assert.Contains(t, []doctor.Verdict{doctor.OK, doctor.Warning}, r.State, r.Seen) // root, and Mosquitto 2.0, get a warning
		case "container-hardening", "program-vulnerabilities", "vault-secret-ids", "vault-audit":
			assert.Equal(t, doctor.Skipped, r.State, r.Seen)
		default:
			assert.Equal(t, doctor.OK, r.State, "%s: %s", r.Name, r.Seen)
		}
	}
	require.NoError(t, results.Err(false))
	_, err = results.WriteTo(io.Discard)
	require.NoError(t, err)
}

// sabotage makes one thing of a mesh unsafe, until the test ends. What it changes
// in patient is where the doctor looks. Seen is what the doctor has to say of it.
type sabotage struct {
	check string
	seen  string
	do    func(t *testing.T, m *testMesh, patient *doctor.Target)
}

// TestDoctorSeesWhatIsBroken breaks what each check looks at, on a real mesh or
// with a real server in a part's place, and has it told.
func TestDoctorSeesWhatIsBroken(t *testing.T) {
	t.Parallel()
	m, patient := examined(t)
	broken := map[string]bool{}
	for _, s := range slices.Concat(brokenSecrets(), brokenBroker(), brokenNATS(), brokenNetwork(), brokenDatabase(), brokenPooler(), brokenHealth(), brokenEST(), brokenTLS(), brokenMachine(), brokenVault()) {
		broken[s.check] = true
		t.Run(s.check, func(t *testing.T) {
			if s.check == "health-limits" || s.check == "est-limits" {
				t.Parallel() // each waits half a minute for a server of its own
			}
			own := *patient
			s.do(t, m, &own)
			var r doctor.CheckResult
			eventually(t, func() bool { r = find(t, &own, s.check); return r.State == doctor.Failed }, "%s is not red", s.check)
			assert.Contains(t, r.Seen, s.seen)
			assert.NotEmpty(t, r.Fix)
			require.ErrorContains(t, doctor.Results{r}.Err(false), s.check)
		})
	}
	for _, c := range doctor.Checks() {
		assert.True(t, broken[c.Name], "nothing breaks %s", c.Name)
	}
}

func brokenSecrets() []sabotage {
	const name = "nats_console_password"
	replace := func(password string) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			old := m.password(t, name)
			if password == "" {
				password = m.password(t, "nats_operator_password")
			}
			require.NoError(t, m.State.SecretFiles().Put(name, "console", password))
			t.Cleanup(func() { require.NoError(t, m.State.SecretFiles().Put(name, "console", old)) })
		}
	}
	return []sabotage{
		{"secret-modes", name + " has mode 644", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := filepath.Join(m.State.SecretsDir(), name)
			require.NoError(t, os.Chmod(path, 0o644))
			t.Cleanup(func() { require.NoError(t, os.Chmod(path, 0o600)) })
		}},
		{"secret-modes", "device.key has mode 644", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := filepath.Join(m.State.DevicesDir(), mac.Dashed(), "device.key")
			require.NoError(t, os.Chmod(path, 0o644))
			t.Cleanup(func() { require.NoError(t, os.Chmod(path, 0o600)) })
		}},
		{"secret-modes", "passwords.conf has mode 640", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := m.State.Path("nats", "passwords.conf")
			require.NoError(t, os.Chmod(path, 0o640))
			t.Cleanup(func() { require.NoError(t, os.Chmod(path, 0o600)) })
		}},
		{"secret-entropy", name + " is too short", replace("admin123")},
		{"secret-entropy", name + " is too short or too simple", replace(strings.Repeat("ab", 20))},
		{"secret-unique", "is the same as " + name, replace("")},
		{"secret-logs", name + " is in", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := m.State.Path("up.out")
			require.NoError(t, os.WriteFile(path, []byte("logging in with "+m.password(t, name)+"\n"), 0o600))
			t.Cleanup(func() { require.NoError(t, os.Remove(path)) })
		}},
		{"secret-arguments", name + " is in /proc/", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			cmd := exec.Command("sh", "-c", "read line", "sh", m.password(t, name)) //nolint:noctx // ends with its input
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		}},
	}
}

// brokenBroker puts a broker with the mesh's files, but for one change, in the
// place of the mesh's own.
func brokenBroker() []sabotage {
	open := strings.NewReplacer("allow_anonymous false", "allow_anonymous true", "password_file ", "#",
		"require_certificate true", "require_certificate false", "use_identity_as_username true", "", "use_username_as_clientid true", "")
	everything := func(t *testing.T, m *testMesh, patient *doctor.Target) {
		t.Helper()
		path := filepath.Join(accounttest.TempDir(t), "acl")
		require.NoError(t, os.WriteFile(path, []byte("pattern readwrite #\n"), 0o644))
		m.otherBroker(t, patient, func(conf string) string {
			return regexp.MustCompile(`(?m)^acl_file .*$`).ReplaceAllString(conf, "acl_file "+path)
		})
	}
	opened := func(t *testing.T, m *testMesh, patient *doctor.Target) {
		t.Helper()
		m.otherBroker(t, patient, open.Replace)
	}
	itself := func(t *testing.T, m *testMesh, patient *doctor.Target) {
		t.Helper()
		cert, key := m.ServerPair()
		free, err := port.Pick("127.0.0.1", 0)
		require.NoError(t, err)
		m.otherBroker(t, patient, func(conf string) string {
			return open.Replace(conf) + fmt.Sprintf("\nlistener %d 127.0.0.1\nprotocol websockets\ncertfile %s\nkeyfile %s\n", free, cert, key)
		})
		patient.Ports.WebSocket = free
		opens(t, "tcp", m.Address(free))
	} // Mosquitto at 9001
	return []sabotage{
		{"mqtt-anonymous", "services: accepted; people: accepted; WebSocket: accepted; controllers: accepted", opened},
		{"mqtt-password", "services: accepted; people: accepted; WebSocket: accepted", opened},
		{"mqtt-listeners", "operator at services: accepted; bridge at people: accepted; registrar at people: accepted; bridge at WebSocket: accepted", opened},
		{"mqtt-client-id", "people: operator may choose a client id; WebSocket: operator may", func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			m.otherBroker(t, patient, func(conf string) string {
				before, people, _ := strings.Cut(conf, "\nlistener 0 ")
				return before + "\nlistener 0 " + strings.Replace(people, "use_username_as_clientid true", "", 1)
			})
		}},
		{"mqtt-origin", "a page of another host: accepted", itself},
		{"mqtt-connections", "the server accepts 128 idle connections of one address", itself},
		{"mqtt-connections", "Mosquitto may have 1024 open files", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			cmd := exec.Command("sh", "-c", "ulimit -Sn 1024; read line") //nolint:noctx // ends with its input
			in, err := cmd.StdinPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
			patient.Dir = t.TempDir()
			file := filepath.Join(patient.Dir, "mosquitto", "data", "mosquitto.pid")
			require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
			require.NoError(t, os.WriteFile(file, []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600))
		}},
		{"mqtt-no-certificate", "no certificate: accepted", opened},
		{"mqtt-wrong-certificate", "self-signed certificate: accepted", opened},
		{"mqtt-topic-publish", "arrived: cmnd/f2-", everything},
		{"mqtt-topic-subscribe", "arrived: tele/f2-", everything},
		{"mqtt-failed-logins", "did not log the attempt", func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			m.otherBroker(t, patient, func(conf string) string { return strings.ReplaceAll(conf, "\nlog_type notice", "") })
		}},
		{"loss-broker-version", "the check could not run", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			free, err := port.Pick("127.0.0.1", 0)
			require.NoError(t, err)
			patient.Ports.People = free
		}},
		{"loss-broker-queue", `autosave_interval is "1800"; max_queued_messages is "1000"; memory_limit is ""`, func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			text, err := os.ReadFile(m.State.Path("mosquitto", "mosquitto.conf"))
			require.NoError(t, err)
			patient.Dir = t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(patient.Dir, "mosquitto"), 0o700))
			text = []byte(strings.NewReplacer("autosave_interval 10", "autosave_interval 1800",
				"max_queued_messages 3500000", "max_queued_messages 1000", "\nmemory_limit", "\n#").Replace(string(text)))
			require.NoError(t, os.WriteFile(filepath.Join(patient.Dir, "mosquitto", "mosquitto.conf"), text, 0o600))
		}},
	}
}

// otherBroker runs Mosquitto with a changed configuration, and shows it to the doctor.
func (m *testMesh) otherBroker(t *testing.T, patient *doctor.Target, change func(string) string) {
	t.Helper()
	dir := accounttest.TempDir(t)
	text, err := os.ReadFile(m.State.Path("mosquitto", "mosquitto.conf"))
	require.NoError(t, err)
	conf := regexp.MustCompile(`(?m)^(persistence_location|pid_file|persistence) .*$`).ReplaceAllString(string(text), "")
	conf = strings.Replace(conf, "listener 0 data/", "listener 0 ", 1)
	for _, number := range []*int{&patient.Ports.MQTT, &patient.Ports.MQTTTLS, &patient.Ports.People, &patient.Ports.WebSocket} {
		free, err := port.Pick("127.0.0.1", 0)
		require.NoError(t, err)
		conf = strings.Replace(conf, fmt.Sprintf("listener %d ", *number), fmt.Sprintf("listener %d ", free), 1)
		*number = free
	}
	if os.Geteuid() == 0 {
		conf += "\nuser root\n" // which reads the files wherever they are
	}
	path := filepath.Join(dir, "mosquitto.conf")
	require.NoError(t, os.WriteFile(path, []byte(change(conf)), 0o600))
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	broker, err := process.Start(process.Config{Path: program, Args: []string{"-c", path}, Dir: dir, Log: m.Log})
	require.NoError(t, err)
	t.Cleanup(func() { _ = broker.Stop(context.Background(), syscall.SIGTERM) })
	cert, key := m.ServerPair()
	folder, err := filepath.EvalSymlinks(m.State.Path("mosquitto"))
	require.NoError(t, err)
	doors, err := mosquitto.People{
		Dir: folder, Socket: filepath.Join(dir, "people.sock"), CertFile: cert, KeyFile: key, Log: m.Log,
		Plain: m.Address(patient.Ports.People), WebSocket: m.Address(patient.Ports.WebSocket),
	}.Open()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, doors.Close()) })
	opens(t, "tcp", m.Address(patient.Ports.MQTTTLS))
	opens(t, "unix", filepath.Join(dir, "people.sock"))
}

// opens waits until somebody listens.
func opens(t *testing.T, network, address string) {
	t.Helper()
	eventually(t, func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), network, address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, "nobody listens on %s", address)
}

// brokenNATS has a NATS server that asks nobody for anything.
func brokenNATS() []sabotage {
	other := func(tls bool) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			m.otherNATS(t, patient, tls)
		}
	}
	return []sabotage{
		{"nats-anonymous", "no user: accepted", other(true)},
		{"nats-password", "wrong password: accepted", other(true)},
		{"nats-tls", "does not require TLS", other(false)},
		{"nats-permissions", "the user of nats_bridge_password may use f2.decoded.doctor", other(true)},
		{"nats-permissions", "the user of nats_registrar_password may use $JS.API.STREAM.UPDATE.AUDIT", other(true)},
		{"nats-permissions", "the user of nats_health_password may use f2.>", other(true)},
		{"nats-permissions", "the user of nats_sys_password may use $JS.API.STREAM.NAMES", other(true)},
		{"nats-replies", "the user of nats_writer_password makes the server publish on f2.doctor.", other(true)},
		{"nats-replies", "the user of nats_console_password makes the server publish on f2.doctor.", rights(
			"{ user: operator, ", "{ user: console, password: $CONSOLE_PASSWORD }\n      { user: operator, ",
			"      { user: console, password: $CONSOLE_PASSWORD }\n      { user: console_b", "      { user: console_b")},
		{"nats-replies", "the user of nats_console_password makes a consumer deliver to any subject", rights(
			`{ service: "$JS.API.STREAM.>" }`, `{ service: "$JS.API.STREAM.>" }, { service: "$JS.API.CONSUMER.CREATE.>" }`,
			`{ service: { account: F2, subject: "$JS.API.STREAM.NAMES" } }`,
			`{ service: { account: F2, subject: "$JS.API.STREAM.NAMES" } }, { service: { account: F2, subject: "$JS.API.CONSUMER.CREATE.>" } }`)},
		{"nats-permissions", "the user of nats_writer_password may use f2.decoded.doctor", rights(
			`{ service: { account: F2, subject: "f2.alarm.writer.>" } }`, `{ service: { account: F2, subject: "f2.decoded.>" } }`)},
		{"loss-nats-sync", "before it is on disk", func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			user, password, err := mesh.LogIn(t.Context(), m.Secrets, "nats_sys_password")
			require.NoError(t, err)
			sys := server.NewAccount("SYS")
			m.otherNATS(t, patient, true, func(o *server.Options) {
				o.Accounts, o.SystemAccount = []*server.Account{sys}, "SYS"
				o.Users = []*server.User{{Username: user, Password: password, Account: sys}}
			})
		}},
		{"loss-stream-files", "stream COMMANDS does not exist", other(true)},
		{"loss-days-to-full", "RAW is full after 0.", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			raw, err := m.js.Stream(t.Context(), "RAW")
			require.NoError(t, err)
			good := raw.CachedInfo().Config
			bad := good
			bad.Metadata = map[string]string{}
			maps.Copy(bad.Metadata, good.Metadata)
			bad.Metadata["f2mesh-rate"] = "1000000"
			_, err = m.js.UpdateStream(t.Context(), bad)
			require.NoError(t, err)
			t.Cleanup(func() {
				_, err := m.js.UpdateStream(context.Background(), good)
				require.NoError(t, err)
			})
		}},
		{"loss-stream-limits", "the disk has 1 MiB free", func(_ *testing.T, _ *testMesh, patient *doctor.Target) {
			patient.Free = func(string) (uint64, error) { return 1 << 20, nil }
		}},
		{"loss-stream-limits", "COMMANDS drops its oldest", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			commands, err := m.js.Stream(t.Context(), "COMMANDS")
			require.NoError(t, err)
			good := commands.CachedInfo().Config
			bad := good
			bad.Discard = jetstream.DiscardOld
			_, err = m.js.UpdateStream(t.Context(), bad)
			require.NoError(t, err)
			t.Cleanup(func() {
				_, err := m.js.UpdateStream(context.Background(), good)
				require.NoError(t, err)
			})
		}},
	}
}

// rights changes the configuration of the running NATS server.
func rights(replacements ...string) func(*testing.T, *testMesh, *doctor.Target) {
	return func(t *testing.T, m *testMesh, _ *doctor.Target) {
		t.Helper()
		path := m.State.Path("nats", "nats-server.conf")
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		bad := string(good)
		for i := 0; i < len(replacements); i += 2 {
			require.Contains(t, bad, replacements[i])
			bad = strings.Replace(bad, replacements[i], replacements[i+1], 1)
		}
		write := func(text string) {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			user, password, err := m.Secrets.LogIn(context.Background(), "nats_sys_password")
			require.NoError(t, err)
			sys, err := nats.Connect("tls://"+m.Address(m.Ports().NATS), nats.UserInfo(user, password), nats.RootCAs(m.Describe().CAFile))
			require.NoError(t, err)
			defer sys.Close()
			_, err = sys.Request("$SYS.REQ.SERVER."+sys.ConnectedServerId()+".RELOAD", nil, 10*time.Second)
			require.NoError(t, err)
		}
		t.Cleanup(func() { write(string(good)) })
		write(bad)
	}
}

func (m *testMesh) otherNATS(t *testing.T, patient *doctor.Target, encrypt bool, change ...func(*server.Options)) {
	t.Helper()
	options := &server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}
	if encrypt {
		options.TLSConfig = m.serverTLS(t)
		options.TLS = true
	}
	for _, c := range change {
		c(options)
	}
	other, err := server.NewServer(options)
	require.NoError(t, err)
	other.Start()
	t.Cleanup(func() { other.Shutdown(); other.WaitForShutdown() })
	require.True(t, other.ReadyForConnections(30*time.Second))
	patient.Ports.NATS = other.Addr().(*net.TCPAddr).Port
}

func (m *testMesh) serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(m.ServerPair())
	require.NoError(t, err)
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
}

func brokenNetwork() []sabotage {
	return []sabotage{{"network-listeners", "not on loopback", func(t *testing.T, _ *testMesh, _ *doctor.Target) {
		t.Helper()
		everywhere, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = everywhere.Close() })
	}}}
}

func brokenDatabase() []sabotage {
	statement := func(database, do, undo string) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			m.sql(t, database, do)
			t.Cleanup(func() { m.sql(t, database, undo) })
		}
	}
	trust := func(t *testing.T, m *testMesh, _ *doctor.Target) {
		t.Helper()
		path := m.State.Path("postgres", "pg_hba.conf")
		good, err := os.ReadFile(path)
		require.NoError(t, err)
		write := func(text string) {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			m.sql(t, mesh.DatabaseAny, "SELECT pg_reload_conf()")
		}
		write("host all all all trust\n" + string(good))
		t.Cleanup(func() { write(string(good)) })
	}
	const device = ` ON fleet."Device" `
	return []sabotage{
		{"database-ports", "listens on ", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			everywhere, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", ":0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = everywhere.Close() })
			patient.Ports.Postgres = everywhere.Addr().(*net.TCPAddr).Port
		}},
		{"database-tls", "without TLS: accepted", trust},
		{"database-password", "no password: accepted; wrong password: accepted", trust},
		{"database-privileges", "the role of postgres_password may do this in metadata: UPDATE", statement(mesh.DatabaseMetadata,
			"GRANT UPDATE"+device+"TO "+mesh.RoleDecoder, "REVOKE UPDATE"+device+"FROM "+mesh.RoleDecoder)},
		{"database-privileges", "the role of timescale_password may do this in metadata: connect", statement(mesh.DatabaseMetadata,
			"GRANT CONNECT ON DATABASE metadata TO "+mesh.RoleWriter, "REVOKE CONNECT ON DATABASE metadata FROM "+mesh.RoleWriter)},
		{"database-failed-logins", "PostgreSQL did not log the attempt", statement(mesh.DatabaseAny,
			"ALTER SYSTEM SET log_min_messages = 'panic'", "ALTER SYSTEM RESET log_min_messages")},
		{"loss-postgres-sync", "fsync is off", statement(mesh.DatabaseAny, "ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync")},
	}
}

// sql runs a statement as the superuser, and has the settings read again.
func (m *testMesh) sql(t *testing.T, database, statement string) {
	t.Helper()
	conn, err := m.Superuser(context.Background(), database)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, s := range []string{statement, "SELECT pg_reload_conf()"} {
		_, err = conn.Exec(context.Background(), s)
		require.NoError(t, err)
	}
}

// brokenPooler changes what the running PgBouncer reads.
func brokenPooler() []sabotage {
	change := func(name string, edit func(t *testing.T, m *testMesh, text string) string) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := m.State.Path("pgbouncer", name)
			good, err := os.ReadFile(path)
			require.NoError(t, err)
			write := func(text string) {
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) // its owner stays
				m.reloadPooler(t)
			}
			t.Cleanup(func() { write(string(good)) })
			write(edit(t, m, string(good)))
		}
	}
	settings := func(replacements ...string) func(*testing.T, *testMesh, *doctor.Target) {
		return change("pgbouncer.ini", func(t *testing.T, _ *testMesh, text string) string {
			t.Helper()
			changed := strings.NewReplacer(replacements...).Replace(text)
			require.NotEqual(t, text, changed)
			return changed
		})
	}
	return []sabotage{
		{"database-pooler", "no password: accepted; wrong password: accepted", settings("auth_type = scram-sha-256", "auth_type = trust")},
		{"database-pooler", "without TLS: accepted", settings("client_tls_sslmode = require", "client_tls_sslmode = allow")},
		{"database-pooler", "the role of postgres_reader_password: accepted", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			m.sql(t, mesh.DatabaseTelemetry, "GRANT "+mesh.RolePooled+" TO "+mesh.RoleReader)
			t.Cleanup(func() { m.sql(t, mesh.DatabaseTelemetry, "REVOKE "+mesh.RolePooled+" FROM "+mesh.RoleReader) })
		}},
		{"database-pooler", "the registrar on the console: accepted", func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper() // PgBouncer does not outlive one that it has looked up before
			change("userlist.txt", func(t *testing.T, m *testMesh, text string) string {
				t.Helper()
				return text + fmt.Sprintf("%q %q\n", mesh.RoleRegistrar, m.password(t, mesh.SecretRegistry))
			})(t, m, patient)
			settings("\nstats_users =", "\nstats_users = "+mesh.RoleRegistrar)(t, m, patient)
		}},
	}
}

func (m *testMesh) reloadPooler(t *testing.T) {
	t.Helper()
	m.Mu.Lock()
	defer m.Mu.Unlock()
	require.NoError(t, m.Pooler.Signal(syscall.SIGHUP))
}

// brokenHealth puts a server in the place of the health API that asks too little or
// too much.
func brokenHealth() []sabotage {
	other := func(answer http.HandlerFunc) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Ports.HTTP = m.otherHTTPS(t, answer, func(*tls.Config) {})
		}
	}
	open := other(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}")
	})
	return []sabotage{
		{"health-anonymous", "/status: returned status 200; /readyz: returned status 200; /metrics: returned status 200", open},
		{"health-anonymous", "/healthz returned more than ok", open},
		{"health-anonymous", "/healthz returned status 401", other(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "" {
				w.WriteHeader(http.StatusUnauthorized)
			}
		})},
		{"health-password", "/status: returned status 200", open},
		{"health-password", "the correct password returned status 401", other(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
		})},
		{"health-failed-logins", "a wrong password was not counted", other(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"failed_logins": 7}`)
		})},
		{"health-failed-logins", "/status counts no failed logins", open},
		{"health-limits", "slow body: the server keeps the connection open", open},
		{"health-limits", "large header: connection open for", open},
		{"health-limits", "the server accepts 128 idle connections of one address", open},
	}
}

// brokenEST puts a server in the place of EST that is too patient.
func brokenEST() []sabotage {
	other := func(status int) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Ports.EST = m.otherHTTPS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					_, _ = io.Copy(io.Discard, r.Body)
					w.WriteHeader(status)
				}
			}), func(*tls.Config) {})
		}
	}
	return []sabotage{
		{"est-limits", "slow body: the server keeps the connection open", other(http.StatusOK)},
		{"est-guessing", "12 wrong claiming codes were compared", other(http.StatusUnauthorized)},
		{"est-guessing", "a wrong claiming code returned status 400", other(http.StatusBadRequest)},
		{"est-renewal", "a certificate that is not due is accepted for renewal (status 400)", other(http.StatusBadRequest)},
	}
}

// otherHTTPS is a server with the mesh's certificate.
func (m *testMesh) otherHTTPS(t *testing.T, answer http.Handler, change func(*tls.Config)) (port int) {
	t.Helper()
	config := m.serverTLS(t)
	change(config)
	other := httptest.NewUnstartedServer(answer)
	other.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	other.Config.ReadHeaderTimeout = 5 * time.Second
	other.TLS = config
	other.StartTLS()
	t.Cleanup(other.Close)
	return other.Listener.Addr().(*net.TCPAddr).Port
}

// brokenTLS puts a server of old or weak TLS in the place of EST or of the health
// API, or lets years pass.
func brokenTLS() []sabotage {
	weak := func(change func(*tls.Config)) func(*testing.T, *testMesh, *doctor.Target) {
		return func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Ports.EST = m.otherHTTPS(t, http.NotFoundHandler(), change)
			patient.Ports.HTTP = m.otherHTTPS(t, http.NotFoundHandler(), change)
		}
	}
	later := func(_ *testing.T, _ *testMesh, patient *doctor.Target) {
		patient.Now = func() time.Time { return time.Now().AddDate(2, 0, 0) }
	}
	return []sabotage{
		{"tls-root-key", "is where services read", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			apart, beside := m.State.RootKey(), m.State.Path("pki", "root.key")
			require.NoError(t, os.Rename(apart, beside))
			t.Cleanup(func() { require.NoError(t, os.Rename(beside, apart)) })
		}},
		{"tls-root-key", "f2mesh-registrar-1 mounts the volume root-key", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Containers = true
			patient.Docker = dockerAPI(t, `{"Name":"f2mesh-registrar-1","Mounts":[{"Name":"f2mesh_root-key"}]}`)
		}},
		{"tls-versions", "EST: accepted; health API: accepted", weak(func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 })},
		{"tls-ciphers", "EST: accepted; health API: accepted", weak(func(c *tls.Config) {
			c.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
		})},
		{"tls-certificates", "controllers (MQTT): tls: failed to verify certificate: x509: certificate has expired", later},
		{"tls-certificates", "health API: tls: failed to verify certificate: x509: certificate has expired", later},
		{"tls-certificates", "device.crt has expired", later},
		{"tls-revocation", "the list of", later},
		{"tls-revocation", "there is no list of", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			path := m.State.Path("mosquitto", "devices.crl")
			lists, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, nil, 0o600))
			t.Cleanup(func() { require.NoError(t, os.WriteFile(path, lists, 0o600)) })
		}},
	}
}

func brokenMachine() []sabotage {
	return []sabotage{
		{"process-users", "Mosquitto runs as root", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Dir = t.TempDir()
			for _, file := range []string{"mosquitto/data/mosquitto.pid", "postgres/data/postmaster.pid"} {
				path := filepath.Join(patient.Dir, file)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
				require.NoError(t, os.WriteFile(path, []byte("1\n"), 0o600)) // the first process is root's
			}
		}},
		{"container-hardening", "f2mesh-decoder-1 runs as root", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Docker = dockerAPI(t, `{"Name":"f2mesh-decoder-1","Config":{"User":""},"HostConfig":{}}`)
		}},
		{"container-hardening", "f2mesh-postgres-1 publishes 5432/tcp", func(t *testing.T, _ *testMesh, patient *doctor.Target) {
			t.Helper()
			patient.Docker = dockerAPI(t, strings.Replace(hardened, `"Ports":{}`, `"Ports":{"5432/tcp":[{"HostPort":"5432"}]}`, 1))
		}},
		{"input-injection", "messages with SQL did not become dead letters", func(t *testing.T, m *testMesh, _ *doctor.Target) {
			t.Helper()
			require.NoError(t, m.Stop(local.PartDecoder))
			t.Cleanup(func() { require.NoError(t, m.Start(context.Background(), local.PartDecoder)) })
		}},
		{"input-injection", "table telemetry.public.victim is missing", func(t *testing.T, m *testMesh, patient *doctor.Target) {
			t.Helper()
			logIns := 0 // as the superuser, to three databases before the messages and to three after
			patient.LogIn = func(ctx context.Context, name string) (string, string, error) {
				if name == mesh.SecretSuperuser {
					switch logIns++; logIns % 6 {
					case 1:
						m.sql(t, mesh.DatabaseTelemetry, "CREATE TABLE IF NOT EXISTS public.victim ()")
					case 4:
						m.sql(t, mesh.DatabaseTelemetry, "DROP TABLE public.victim") // as the messages would have it
					}
				}
				return m.Secrets.LogIn(ctx, name)
			}
		}},
		{"program-vulnerabilities", "Your code is affected", func(_ *testing.T, _ *testMesh, patient *doctor.Target) {
			patient.Vulncheck = []string{"sh", "-c", "echo Your code is affected by 1 vulnerability; exit 3"}
		}},
	}
}

// brokenVault gives the doctor a Vault in which logins are good for ever and from
// everywhere, and which records nothing.
func brokenVault() []sabotage {
	loose := func(t *testing.T, _ *testMesh, patient *doctor.Target) {
		t.Helper()
		roles := vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: time.Hour, WrapTTL: time.Hour, CIDRs: []string{"0.0.0.0/0"}}
		_, patient.Vault = vaultOf(t, roles, vault.AuditDevice{})
	}
	return []sabotage{
		{"vault-secret-ids", "new SecretIDs of bridge never expire; SecretIDs of bridge are accepted from every address; 1 SecretIDs of bridge never expire", loose},
		{"vault-audit", "no audit device", loose},
	}
}

// vaultOf is a Vault of the mesh, and an administrator's session with it.
func vaultOf(t *testing.T, roles vault.Roles, audit vault.AuditDevice) (vault.Config, *vault.Client) {
	t.Helper()
	server := vaulttest.StartDev(t)
	cfg := server.Config(filepath.Join(t.TempDir(), "vault"))
	b := vault.Bootstrap{Config: cfg, Roles: roles, Audit: audit, Report: func(vault.Step) {}}
	require.NoError(t, b.Run(t.Context(), server.Root))
	client, err := vault.OpenToken(cfg, server.Root, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return cfg, client
}

// TestDoctorOnVault has a Vault as bootstrap prepares it pass, and does not guess what
// the operator may not see.
func TestDoctorOnVault(t *testing.T) {
	t.Parallel()
	roles := vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: time.Hour, SecretIDTTL: 2160 * time.Hour, WrapTTL: time.Hour}
	cfg, administrator := vaultOf(t, roles, vault.AuditDevice{File: filepath.Join(t.TempDir(), "audit.log")})
	operator, err := vault.Open(cfg, "operator", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(operator.Close)
	for _, check := range []string{"vault-secret-ids", "vault-audit"} {
		r := find(t, &doctor.Target{Vault: administrator}, check)
		assert.Equal(t, doctor.OK, r.State, r.Seen)
		r = find(t, &doctor.Target{Vault: operator}, check)
		assert.Equal(t, doctor.Skipped, r.State, r.Seen)
		assert.Contains(t, r.Seen, "VAULT_TOKEN")
	}
}

// hardened is a container as compose.yaml has it, in the Docker API's words.
const hardened = `{"Name":"f2mesh-postgres-1","Config":{"User":"10001:10001","Healthcheck":{"Test":["CMD","x"]}},
"HostConfig":{"Memory":1,"NanoCpus":1,"ReadonlyRootfs":true,"CapDrop":["ALL"],"SecurityOpt":["no-new-privileges:true"],"NetworkMode":"f2mesh_data"},
"NetworkSettings":{"Ports":{}}}`

// dockerAPI answers for one container, on a Unix socket.
func dockerAPI(t *testing.T, container string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "docker.sock")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containers/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[{"Id":"1"}]`) })
	mux.HandleFunc("GET /containers/1/json", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, container) })
	api := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}}
	api.Start()
	t.Cleanup(api.Close)
	return socket
}

// TestDoctorOnContainers has a hardened container pass.
func TestDoctorOnContainers(t *testing.T) {
	t.Parallel()
	r := find(t, &doctor.Target{Docker: dockerAPI(t, hardened)}, "container-hardening")
	assert.Equal(t, doctor.OK, r.State, r.Seen)
	r = find(t, &doctor.Target{Docker: filepath.Join(t.TempDir(), "none")}, "container-hardening")
	assert.Equal(t, doctor.Skipped, r.State, r.Seen)
}

// TestDoctorDoesNotGuess has what could not be found out not pass.
func TestDoctorDoesNotGuess(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]doctor.Verdict{
		"exit 0": doctor.OK, "exit 3": doctor.Failed, "echo fetching vulnerabilities: no route; exit 1": doctor.Skipped,
	} {
		r := find(t, &doctor.Target{Vulncheck: []string{"sh", "-c", script}}, "program-vulnerabilities")
		assert.Equal(t, want, r.State, r.Seen)
	}
	_, err := doctor.Run(t.Context(), &doctor.Target{}, "stranger")
	require.ErrorContains(t, err, "stranger")
}
