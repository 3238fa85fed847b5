package main

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// book is a log that several goroutines write.
type book struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	file *os.File // gets it too; nil: none
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file != nil {
		_, _ = b.file.Write(p)
	}
	return b.buf.Write(p)
}

func (b *book) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// canaries are secrets by name, and the places where none may be, by name.
type canaries struct {
	m       *testMesh
	log     *book
	secrets map[string]string
	errors  *book // of commands and operations
}

func (c *canaries) know(name, text string) {
	if text != "" {
		c.secrets[name] = text
	}
}

// knowAll takes the secrets of the mesh as they are now; a rotation makes more.
func (c *canaries) knowAll(t *testing.T, when string) {
	t.Helper()
	for _, name := range append(credential.Names(credential.All()), credential.HealthAPI) {
		c.know(name+" "+when, c.m.password(t, name))
	}
	for _, path := range []string{
		filepath.Join(c.m.State.DevicesDir(), mac.Dashed(), "device.key"),
		c.m.State.RootKey(), c.m.State.Path("pki", "server", "server.key"),
	} {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		lines := strings.Split(string(text), "\n")
		require.Greater(t, len(lines), 3)
		c.know(filepath.Base(path), lines[2]) // the half with the key itself
	}
}

// places collects what is there to see.
func (c *canaries) places(t *testing.T) map[string]string {
	t.Helper()
	places := map[string]string{"log": c.log.text(), "errors": c.errors.text(), "argv": arguments(t)}
	response := &strings.Builder{}
	for _, service := range c.m.Services() {
		families, err := service.Gatherer.Gather()
		require.NoError(t, err)
		for _, f := range families {
			response.WriteString(f.String() + "\n")
		}
		stats, err := c.m.js.Conn().Request(probe.SecretsSubject(service.Name), nil, 5*time.Second)
		require.NoError(t, err)
		response.Write(stats.Data)
	}
	places["metrics"] = response.String()
	places["audit stream"] = string(bytes.Join(c.m.messages(t, stream.Audit), []byte("\n")))
	trail, err := registrar.NewTrail(c.m.openCore(t).Pool.Pool).Since(t.Context(), time.Time{}, "", 10000)
	require.NoError(t, err)
	text, err := json.Marshal(trail)
	require.NoError(t, err)
	places["audit table"] = string(text)
	return places
}

// arguments are those of every process on the machine that we may look at.
func arguments(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil { // or it has ended
			all.WriteString(strings.ReplaceAll(string(text), "\x00", " ") + "\n")
		}
	}
	return all.String()
}

// found lists which secrets are where, in whatever encoding.
func (c *canaries) found(places map[string]string) (leaks []string) {
	for _, place := range slices.Sorted(maps.Keys(places)) {
		for name, text := range c.secrets {
			for how, form := range map[string]string{
				"plain": text, "base64": base64.StdEncoding.EncodeToString([]byte(text)), "hex": hex.EncodeToString([]byte(text)),
				"URL": url.QueryEscape(text), "path": url.PathEscape(text), "quoted": strings.Trim(mustQuote(text), `"`),
			} {
				if strings.Contains(places[place], form) {
					leaks = append(leaks, name+" ("+how+") in "+place)
					break
				}
			}
		}
	}
	slices.Sort(leaks)
	return leaks
}

func mustQuote(text string) string {
	quoted, _ := json.Marshal(text) // a string always encodes
	return string(quoted)
}

// TestCanarySecrets provokes failures in every part and looks for secrets in all
// that the mesh tells: logs at debug level, errors, metrics, arguments, the audit
// trail. A leak that is planted in each place is found.
func TestCanarySecrets(t *testing.T) {
	t.Parallel()
	log := &book{}
	m := startMeshLogging(t, slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), quickPoll)
	c := &canaries{m: m, log: log, errors: &book{}, secrets: map[string]string{}}
	c.knowAll(t, "at first")
	c.know("claiming code", "canary claiming code 1")
	c.know("guessed code", "canary guess of a code")
	c.know("guessed password", "canary guess of a password")
	m.claimable(t, newcomer, 9001, c.secrets["claiming code"])

	t.Run("enrolment", func(t *testing.T) { c.enrol(t) })
	t.Run("logins", func(t *testing.T) { c.logins(t) })
	t.Run("commands", func(t *testing.T) { c.commands(t) })
	t.Run("rotation", func(t *testing.T) { c.rotate(t) })
	t.Run("outages", func(t *testing.T) { c.outages(t) })
	t.Run("vault", func(t *testing.T) { c.vault(t) })

	places := c.places(t)
	for place, text := range places {
		require.NotEmpty(t, text, place)
	}
	assert.Empty(t, c.found(places))
	t.Run("planted", func(t *testing.T) { c.plant(t) })
}

func (c *canaries) enrol(t *testing.T) {
	t.Helper()
	_, csr := newRequest(t, pkix.Name{})
	for _, e := range []enrolment{
		{code: c.secrets["guessed code"], csr: csr},
		{code: c.secrets["claiming code"], csr: []byte("bm90IGEgQ1NS")},
		{code: c.secrets["claiming code"], csr: csr},
		{code: c.secrets["claiming code"], csr: csr},
	} {
		e.operation, e.user = "simpleenroll", string(newcomer)
		c.know("credentials of "+e.code, base64.StdEncoding.EncodeToString([]byte(e.user+":"+e.code)))
		status, _ := c.m.enrol(t, e)
		require.Contains(t, []int{http.StatusOK, http.StatusUnauthorized, http.StatusBadRequest}, status)
	}
}

// logins guesses passwords at every server.
func (c *canaries) logins(t *testing.T) {
	t.Helper()
	guess := c.secrets["guessed password"]
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://" + c.m.Address(c.m.Ports().MQTT)).SetUsername("bridge").SetPassword(guess))
	require.Error(t, wait(client.Connect()))
	client.Disconnect(0)
	_, err := nats.Connect(c.m.Nats.URL(), nats.UserInfo("bridge", guess), nats.RootCAs(c.m.Authority.CAFile()))
	require.Error(t, err)
	config, err := pgx.ParseConfig(c.m.DSN(mesh.RoleWriter, mesh.DatabaseTelemetry))
	require.NoError(t, err)
	config.Password = guess
	_, err = pgx.ConnectConfig(t.Context(), config)
	require.Error(t, err)
	_, _ = c.errors.Write([]byte(err.Error() + "\n"))
}

// commands are what people type; their output is theirs to paste into a ticket.
func (c *canaries) commands(t *testing.T) {
	t.Helper()
	require.NoError(t, c.m.State.Save(c.m.Describe()))
	self, err := os.Executable()
	require.NoError(t, err)
	lock, err := c.m.State.Lock() // as up holds it
	require.NoError(t, err)
	defer func() { _ = lock.Close() }()
	require.NoError(t, mesh.NoteHolder(lock))
	for _, args := range [][]string{
		{"status"},
		{"env"},
		{"device", "log"},
		{"device", "log", "--json", string(newcomer)},
		{"device", "list"},
		{"secret", "status"},
		{"secret", "rotate", "--dry-run", "--all"},
		{"secret", "rotate", "nonsense"},
		{"device", "log", "nonsense"},
		{"audit"},
	} {
		cmd := exec.CommandContext(t.Context(), self, append(args, "--log-level=debug")...)
		cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "F2MESH_STATE_DIR="+c.m.State.Dir)
		out, err := cmd.CombinedOutput()
		if len(args) < 3 && args[0] != "audit" {
			require.NoError(t, err, "%v: %s", args, out)
		}
		_, _ = c.errors.Write(out)
	}
}

func (c *canaries) rotate(t *testing.T) {
	t.Helper()
	r := c.m.rotator(t)
	for _, name := range []string{"mqtt_registrar_password", "registry_password", "nats_writer_password"} {
		one, ok := credential.Find(name)
		require.True(t, ok)
		_, err := r.Run(t.Context(), r.Config(t.Context(), one))
		require.NoError(t, err)
	}
	c.knowAll(t, "after the rotation")
}

// outages takes each server away from those who need it.
func (c *canaries) outages(t *testing.T) {
	t.Helper()
	tr := startTraffic(t, c.m.device(t, mac))
	for _, part := range []string{local.PartPostgres, local.PartMosquitto, local.PartNATS} {
		require.NoError(t, c.m.Stop(part))
		time.Sleep(1500 * time.Millisecond) // for everybody to notice, and to try again
		require.NoError(t, c.m.Start(t.Context(), part))
	}
	tr.finish(t, c.m)
	// A secret file that is wrong, and one that others may read.
	path := filepath.Join(c.m.State.SecretsDir(), "timescale_password")
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, []byte(c.secrets["guessed password"]), 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	require.NoError(t, c.m.Stop(local.PartPostgres))
	time.Sleep(time.Second)
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, good, 0o600))
	require.NoError(t, c.m.Start(t.Context(), local.PartPostgres))
	require.Eventually(t, func() bool {
		for _, s := range c.m.Services() {
			if s.Ready(t.Context()) != nil {
				return false
			}
		}
		return len(c.m.Services()) == 7
	}, time.Minute, 50*time.Millisecond)
}

// vault has the secrets in a Vault that is sealed, and services whose logins there
// are refused.
func (c *canaries) vault(t *testing.T) {
	t.Helper()
	server := vaulttest.StartFile(t)
	cfg := server.Config(c.m.State.Path("vault"))
	bootstrap := vault.Bootstrap{
		Config: cfg, SecretsDir: c.m.State.SecretsDir(), Report: func(vault.Step) {},
		Roles: vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: time.Hour, WrapTTL: time.Hour},
	}
	require.NoError(t, bootstrap.Run(t.Context(), server.Root))
	c.know("vault root token", server.Root.Reveal())
	files, err := filepath.Glob(filepath.Join(c.m.State.Path("vault"), "*.secret_id"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		c.know(filepath.Base(file), strings.TrimSpace(string(text)))
	}
	was := c.m.Cfg.Secrets.Config
	c.m.Cfg.Secrets.Config = cfg
	defer func() { c.m.Cfg.Secrets.Config = was }()
	restart := func() {
		for _, part := range []string{local.PartWriter, local.PartRegistrar} {
			require.NoError(t, c.m.Stop(part))
			require.NoError(t, c.m.Start(t.Context(), part))
		}
	}
	restart()
	server.Seal()
	require.Eventually(t, func() bool { return c.m.Figures()["f2mesh_secret_downgraded"] > 0 }, time.Minute, 50*time.Millisecond)
	server.Unseal()
	require.Eventually(t, func() bool { return c.m.Figures()["f2mesh_secret_downgraded"] == 0 }, time.Minute, 50*time.Millisecond)
	_, err = vault.OpenToken(cfg, secret.NewValue(c.secrets["guessed password"], "", ""), c.m.Log)
	if err != nil {
		_, _ = c.errors.Write([]byte(err.Error()))
	}
	c.m.Cfg.Secrets.Config = was
	restart()
}

// plant puts a secret into every place that is searched.
func (c *canaries) plant(t *testing.T) {
	t.Helper()
	leak := "mqtt_password at first"
	text := c.secrets[leak]
	require.NotEmpty(t, text)
	sleeper := exec.CommandContext(t.Context(), "sh", "-c", "read x", text)
	input, err := sleeper.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, sleeper.Start())
	defer func() { _ = input.Close(); _ = sleeper.Wait() }()
	for place, clean := range map[string]string{
		"log": c.log.text(), "errors": c.errors.text(), "argv": "", "metrics": "", "audit stream": "", "audit table": "",
	} {
		dirty := map[string]string{place: clean}
		switch place {
		case "argv":
			dirty[place] = arguments(t)
		case "log":
			one := &book{}
			slog.New(slog.NewJSONHandler(one, nil)).Error("planted", "dsn", "postgres://user:"+url.QueryEscape(text)+"@host/")
			dirty[place] += one.text()
		case "audit stream", "audit table":
			m, err := registrar.AuditMessage(registrar.Event{Action: registrar.Issue, Detail: "planted " + base64.StdEncoding.EncodeToString([]byte(text))})
			require.NoError(t, err)
			dirty[place] = string(m.Data)
		default:
			dirty[place] += "f2mesh_planted{secret=" + mustQuote(text) + "} 1"
		}
		leaks := c.found(dirty)
		require.NotEmpty(t, leaks, place)
		for _, one := range leaks { // it may be known by two names
			assert.Contains(t, one, "mqtt_password ")
			assert.Contains(t, one, "in "+place)
		}
	}
}
