package vault_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// names are all secrets of a mesh.
var names = []string{
	"mqtt_username", "mqtt_password", "mqtt_operator_password", "mqtt_registrar_password",
	"postgres_password", "timescale_password", "registry_password", "postgres_superuser_password", "postgres_reader_password",
	"nats_bridge_password", "nats_decoder_password", "nats_writer_password", "nats_registrar_password", "nats_health_password", "nats_alarm_password", "nats_keeper_password", "nats_console_password", "person_ada_password", "health_password", "nats_operator_password",
}

var short = vault.Roles{TokenTTL: time.Hour, TokenMaxTTL: 24 * time.Hour, WrapTTL: 5 * time.Minute}

// privateDir is a directory as secret.Files wants it.
func privateDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	return dir
}

// secretsDir has a file for each name, with the text "first-<name>".
func secretsDir(t *testing.T, names ...string) string {
	t.Helper()
	dir := privateDir(t)
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("first-"+name+"\n"), 0o600))
	}
	return dir
}

// mesh is a Vault that is prepared for a mesh.
type mesh struct {
	*vaulttest.Server
	vault.Bootstrap
}

// prepare starts a dev server and prepares it, with the roles given.
func prepare(t *testing.T, roles vault.Roles) *mesh {
	t.Helper()
	return prepareServer(t, vaulttest.StartDev(t), roles)
}

func prepareServer(t *testing.T, s *vaulttest.Server, roles vault.Roles) *mesh {
	t.Helper()
	m := &mesh{Server: s, Bootstrap: vault.Bootstrap{
		Config: s.Config(privateDir(t)), SecretsDir: secretsDir(t, names...), Roles: roles, Report: func(vault.Step) {},
	}}
	m.run(t)
	return m
}

// run prepares the Vault once more and returns the changes.
func (m *mesh) run(t *testing.T) map[vault.Change][]string {
	t.Helper()
	steps := map[vault.Change][]string{}
	m.Report = func(s vault.Step) { steps[s.Change] = append(steps[s.Change], s.What) }
	require.NoError(t, m.Run(t.Context(), m.Root))
	return steps
}

// client is a service's session.
func (m *mesh) client(t *testing.T, service string) *vault.Client {
	t.Helper()
	return open(t, m.Bootstrap.Config, service, slog.DiscardHandler)
}

func open(t *testing.T, cfg vault.Config, service string, log slog.Handler) *vault.Client {
	t.Helper()
	c, err := vault.Open(cfg, service, slog.New(log))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func (m *mesh) file(name string) string { return filepath.Join(m.Bootstrap.Config.AuthDir, name) }

func (m *mesh) read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(m.file(name))
	require.NoError(t, err)
	return strings.TrimSpace(string(data))
}

func (m *mesh) write(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(m.file(name), []byte(text), 0o600))
}

// recorder keeps a log. It is safe for concurrent use.
type recorder struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func (r *recorder) handler() slog.Handler {
	return slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})
}

func requireSecret(t *testing.T, c secret.Source, name, want string) {
	t.Helper()
	v, err := c.Lookup(t.Context(), name)
	require.NoError(t, err)
	require.Equal(t, want, v.Reveal())
	require.Equal(t, "vault", v.Source())
}

// TestLogin: the wrapped SecretID works once, and is kept for the next start.
func TestLogin(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	wrapping := m.read(t, "bridge.secret_id")
	require.True(t, strings.HasPrefix(wrapping, "hvs."), "a wrapping token")
	var log recorder
	requireSecret(t, open(t, m.Bootstrap.Config, "bridge", log.handler()), "mqtt_password", "first-mqtt_password")

	secretID := m.read(t, "bridge.secret_id")
	assert.NotEqual(t, wrapping, secretID)
	assert.Len(t, secretID, 36, "a UUID")
	info, err := os.Stat(m.file("bridge.secret_id"))
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode())
	entries, err := os.ReadDir(m.Bootstrap.Config.AuthDir)
	require.NoError(t, err)
	assert.Len(t, entries, 2*len(vault.Services), "nothing is left beside the files")

	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
	assert.Equal(t, secretID, m.read(t, "bridge.secret_id"), "the second start leaves it alone")
	printed := log.String()
	c := m.client(t, "bridge")
	requireSecret(t, c, "mqtt_password", "first-mqtt_password")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		printed += fmt.Sprintf(verb, c)
		printed += fmt.Sprintf(verb, &m.Bootstrap)
	}
	for _, private := range []string{wrapping, secretID, m.read(t, "bridge.role_id"), "first-mqtt_password"} {
		assert.NotContains(t, printed, private)
	}
	assert.Contains(t, log.String(), "logged in to vault")
}

// TestWrappingRefused: a wrapping token that somebody else has used, or made, is
// a loud error, with nothing to fall back to.
func TestWrappingRefused(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	api := m.API()
	used := m.read(t, "bridge.secret_id")
	answer, err := api.Logical().UnwrapWithContext(t.Context(), used)
	require.NoError(t, err, "the interception")
	stolen, _ := answer.Data["secret_id"].(string)
	require.Len(t, stolen, 36)
	wrapper := m.API()
	wrapper.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	again, err := wrapper.Logical().WriteWithContext(t.Context(), "sys/wrapping/wrap", map[string]any{"secret_id": stolen})
	require.NoError(t, err)

	for name, test := range map[string]struct{ text, want string }{
		"used":            {used, "intercepted"},
		"unknown":         {"hvs.CAESIJ_unknown", "intercepted"},
		"wrapped again":   {again.WrapInfo.Token, `made by "sys/wrapping/wrap"`},
		"another service": {m.read(t, "writer.secret_id"), `made by "auth/approle/role/f2mesh-writer/secret-id"`},
		"a root token":    {m.Root.Reveal(), "the SecretID may be revoked"},
	} {
		m.write(t, "bridge.secret_id", test.text)
		files := secret.Files(secretsDir(t, "mqtt_password"))
		v, err := secret.NewStore(secret.Chain{m.client(t, "bridge"), files}, slog.New(slog.DiscardHandler)).Get(t.Context(), "mqtt_password")
		require.ErrorIs(t, err, vault.ErrLogin, name)
		require.NotErrorIs(t, err, secret.ErrUnavailable, name)
		require.ErrorContains(t, err, test.want, name)
		require.ErrorContains(t, err, "f2mesh vault bootstrap --reissue bridge", "%s: the remedy", name)
		require.NotContains(t, err.Error(), test.text, name)
		require.Empty(t, v.Reveal(), "%s: the file must not hide it", name)
		require.Equal(t, test.text, m.read(t, "bridge.secret_id"), "%s: the evidence stays", name)
	}
	requireSecret(t, m.client(t, "writer"), "timescale_password", "first-timescale_password") // its token was looked at, not used

	writer := m.client(t, "writer")
	accessor := m.accessor(t, writer)
	m.Reissue = []string{"bridge"}
	require.Len(t, m.run(t)[vault.Changed], 1)
	require.Equal(t, accessor, m.accessor(t, writer), "another service's login stays")
	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
	_, err = api.Logical().WriteWithContext(t.Context(), "auth/approle/login", map[string]any{
		"role_id": m.read(t, "bridge.role_id"), "secret_id": stolen,
	})
	require.Error(t, err, "what was stolen is worth nothing any more")
}

func TestLoginFiles(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	require.NoError(t, os.Remove(m.file("bridge.role_id")))
	require.NoError(t, os.Remove(m.file("decoder.secret_id")))
	require.NoError(t, os.Chmod(m.file("writer.secret_id"), 0o644))
	for service, want := range map[string]string{
		"bridge":  "bridge.role_id does not exist: `f2mesh vault bootstrap` writes it",
		"decoder": "decoder.secret_id does not exist",
		"writer":  "chmod 600 " + m.file("writer.secret_id"),
	} {
		_, err := m.client(t, service).Lookup(t.Context(), "mqtt_password")
		require.ErrorContains(t, err, want)
		require.NotErrorIs(t, err, secret.ErrNotFound, "the login is missing, not the secret")
		// Without a role there is no login yet, and the next link of the chain is asked.
		assert.Equal(t, service == "bridge", errors.Is(err, secret.ErrUnavailable), service)
	}
}

// TestRefusedLoginIsNotRetried: Vault locks a role out after some refusals, so a login that
// was refused waits for other files.
func TestRefusedLoginIsNotRetried(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	good := m.read(t, "bridge.secret_id")
	m.write(t, "bridge.secret_id", "11111111-2222-3333-4444-555555555555")
	c := m.client(t, "bridge")
	for range 12 { // more than the five that lock a role out
		_, err := c.Lookup(t.Context(), "mqtt_password")
		require.ErrorIs(t, err, vault.ErrLogin)
	}
	m.write(t, "bridge.secret_id", good)
	requireSecret(t, c, "mqtt_password", "first-mqtt_password")
}

// TestRevokedToken: a service whose token is revoked logs in again, at once.
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	var log recorder
	c := open(t, m.Bootstrap.Config, "bridge", log.handler())
	requireSecret(t, c, "mqtt_password", "first-mqtt_password")
	for round := 1; round <= 3; round++ {
		require.NoError(t, m.API().Sys().RevokePrefixWithContext(t.Context(), "auth/approle/login"))
		var all sync.WaitGroup
		var errs [8]error
		for i := range errs {
			all.Go(func() { _, errs[i] = c.Lookup(t.Context(), "mqtt_password") })
		}
		all.Wait()
		require.NoError(t, errors.Join(errs[:]...))
		requireSecret(t, c, "mqtt_password", "first-mqtt_password")
		assert.Equal(t, 1+round, strings.Count(log.String(), "logged in to vault"), "one of them logs in for all")
	}

	// The control: with the SecretID gone too there is no way back.
	m.Reissue, m.Bootstrap.Config.AuthDir = []string{"bridge"}, privateDir(t)
	m.run(t)
	_, err := c.Lookup(t.Context(), "mqtt_password")
	require.ErrorIs(t, err, vault.ErrLogin)
}

// TestTokenLife: a token is renewed while it can be, and replaced when it cannot.
func TestTokenLife(t *testing.T) {
	t.Parallel()
	m := prepare(t, vault.Roles{TokenTTL: 2 * time.Second, TokenMaxTTL: 5 * time.Second, WrapTTL: time.Minute})
	var log recorder
	c := open(t, m.Bootstrap.Config, "bridge", log.handler())
	seen := map[string]bool{}
	for deadline := time.Now().Add(12 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		requireSecret(t, c, "mqtt_password", "first-mqtt_password")
		seen[m.accessor(t, c)] = true
	}
	assert.GreaterOrEqual(t, len(seen), 3, "5 s are the most for one token")
	assert.Less(t, len(seen), 7, "and renewal makes more of it than 2 s")
	assert.Equal(t, len(seen), strings.Count(log.String(), "logged in to vault"))
	assert.NotContains(t, log.String(), "no longer knows the token", "no request has failed for it")
}

func (m *mesh) accessor(t *testing.T, c *vault.Client) string {
	t.Helper()
	data, err := c.Read(t.Context(), "auth/token/lookup-self")
	require.NoError(t, err)
	accessor, _ := data["accessor"].(string)
	require.NotEmpty(t, accessor)
	return accessor
}

func TestCIDR(t *testing.T) {
	t.Parallel()
	roles := short
	roles.CIDRs = []string{"192.0.2.0/24"}
	m := prepare(t, roles)
	_, err := m.client(t, "bridge").Lookup(t.Context(), "mqtt_password")
	require.ErrorIs(t, err, vault.ErrLogin)

	m.Roles.CIDRs = []string{"127.0.0.1/32", "192.0.2.0/24"}
	require.Len(t, m.run(t)[vault.Changed], len(vault.Services))
	require.Empty(t, m.run(t)[vault.Changed], "as Vault answers them")
	m.Reissue = []string{"bridge"} // a SecretID keeps the networks that it was made with
	m.run(t)
	requireSecret(t, m.client(t, "bridge"), "mqtt_password", "first-mqtt_password")
}

func TestConfigRefused(t *testing.T) {
	for addr, want := range map[string]string{
		"vault.example.org":              "is not a URL",
		"ftp://vault.example.org":        "is not a URL",
		"http://vault.example.org:8200":  "unencrypted",
		"http://192.0.2.1:8200":          "unencrypted",
		"https://me:hunter2@example.org": "user name or password",
	} {
		_, err := vault.Open(vault.Config{Addr: addr}, "bridge", slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, want, addr)
		require.NotContains(t, err.Error(), "hunter2")
	}
	for _, addr := range []string{"https://vault.example.org:8200", "http://127.0.0.1:8200", "http://[::1]:8200", "http://localhost:8200"} {
		_, err := vault.Open(vault.Config{Addr: addr}, "bridge", slog.New(slog.DiscardHandler))
		require.NoError(t, err, addr)
	}
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	_, err := vault.Open(vault.Config{Addr: "https://vault.example.org:8200"}, "bridge", slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "VAULT_CACERT")
}

// TestTLS: Vault's certificate is checked, and a wrong one is no outage that files
// would make up for.
func TestTLS(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	target, err := url.Parse(m.Addr)
	require.NoError(t, err)
	front := httptest.NewTLSServer(httputil.NewSingleHostReverseProxy(target))
	t.Cleanup(front.Close)
	cfg := m.Bootstrap.Config
	cfg.Addr = front.URL
	files := secret.Files(secretsDir(t, "mqtt_password"))
	_, err = secret.NewStore(secret.Chain{open(t, cfg, "bridge", slog.DiscardHandler), files}, slog.New(slog.DiscardHandler)).Get(t.Context(), "mqtt_password")
	require.ErrorContains(t, err, "VAULT_CACERT")
	require.NotErrorIs(t, err, secret.ErrUnavailable)

	cfg.CACert = filepath.Join(t.TempDir(), "ca.crt")
	_, err = vault.Open(cfg, "bridge", slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, cfg.CACert)
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	require.NoError(t, os.WriteFile(cfg.CACert, data, 0o600))
	requireSecret(t, open(t, cfg, "bridge", slog.DiscardHandler), "mqtt_password", "first-mqtt_password")
}

var errStop = errors.New("stop")

// follow runs a store over the chain until the test ends.
func follow(t *testing.T, chain secret.Chain, log slog.Handler) *secret.Store {
	t.Helper()
	store := secret.NewStore(chain, slog.New(log))
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel(errStop)
		assert.NoError(t, <-done)
	})
	return store
}

// eventually has the store look, as a refused connection would, until the
// secret's status is as wanted.
func eventually(t *testing.T, store *secret.Store, name string, wanted func(secret.Status) bool) secret.Status {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		for _, s := range store.Status() {
			if s.Name == name && wanted(s) {
				return s
			}
		}
		require.True(t, time.Now().Before(deadline), "%+v", store.Status())
		store.Refused()
		time.Sleep(50 * time.Millisecond)
	}
}
