package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/mesh/service"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// TestHealthcheck asks real servers, and each time one thing is wrong.
func TestHealthcheck(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	check := func(url string, change ...func(*containers.Healthcheck)) error {
		c := containers.Healthcheck{URLs: []string{url}, CAFile: m.Authority.CAFile(), SecretsDir: m.State.SecretsDir(), Timeout: 10 * time.Second}
		for _, do := range change {
			do(&c)
		}
		return c.Run(t.Context())
	}
	with := func(name string) func(*containers.Healthcheck) {
		return func(c *containers.Healthcheck) { c.Secret = name }
	}

	broker := "mqtt://bridge@" + m.Address(m.Ports().MQTT)
	require.NoError(t, check(broker, with(mesh.SecretMQTTPassword)))
	require.ErrorIs(t, check(broker, with(mesh.SecretMQTTOperator)), mosquitto.ErrRefused)
	require.ErrorIs(t, check(broker, with("unknown")), secret.ErrNotFound)
	require.Error(t, check(broker))

	database := "postgres://f2mesh_reader@" + m.Address(m.Ports().Postgres) + "/telemetry"
	require.NoError(t, check(database, with(mesh.SecretReader)))
	require.ErrorContains(t, check(database, with(mesh.SecretPostgres)), "28P01")
	require.Error(t, check(database, with(mesh.SecretReader), func(c *containers.Healthcheck) { c.CAFile = m.State.RootKey() }))

	metadata := "postgres://f2mesh_decoder@" + m.Address(m.Ports().Postgres) + "/metadata"
	both := func(c *containers.Healthcheck) {
		c.URLs = append(c.URLs, strings.Replace(metadata, "/metadata", "/registry", 1))
	}
	require.NoError(t, check(metadata, with(mesh.SecretPostgres)))
	require.ErrorContains(t, check(metadata, with(mesh.SecretPostgres), both), "42501", "all that are named are asked")

	web := httptest.NewServer(http.StripPrefix("/healthz", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "" {
			http.NotFound(w, r)
		}
	})))
	defer web.Close()
	require.NoError(t, check(web.URL+"/healthz"))
	require.ErrorContains(t, check(web.URL+"/nothing"), "404")
	require.ErrorContains(t, check("ftp://127.0.0.1"), "ftp")
	require.Error(t, check("mqtt://bridge@127.0.0.1:1", with(mesh.SecretMQTTPassword)), "there is no broker")
}

// Without a URL the service of the same container is asked whether it is ready.
func TestHealthcheckOfOwnService(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/readyz", r.URL.Path)
		w.WriteHeader(status)
	}))
	defer plain.Close()
	c := containers.Healthcheck{HTTP: plain.Listener.Addr().String(), Timeout: 10 * time.Second}
	require.NoError(t, c.Run(t.Context()))
	status = http.StatusServiceUnavailable
	require.ErrorContains(t, c.Run(t.Context()), "503")
	status = http.StatusOK
	require.Error(t, (&containers.Healthcheck{URLs: []string{server.URL}, Timeout: 10 * time.Second}).Run(t.Context()), "an unknown certificate")
	require.Error(t, (&containers.Healthcheck{HTTP: "9100", Timeout: time.Second}).Run(t.Context()))
}

func TestSimulateHealth(t *testing.T) {
	t.Parallel()
	ready := func(context.Context) error { return nil }
	stop, err := service.ServeHealth(t.Context(), "127.0.0.1:0", "simulator", ready, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	stop()
}

// TestContainerSetup: what is there stays, and whom the containers run as does not
// change under their volumes.
func TestContainerSetup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".env"), []byte("CACHE_TTL=60"), 0o600))
	c := containers.Setup{Compose: dir, UID: os.Geteuid(), GID: os.Getegid()}
	if c.UID == 0 {
		require.ErrorContains(t, c.Run(t.Context(), false), "root")
		c.UID, c.GID = 4321, 4321
	}
	require.NoError(t, c.Run(t.Context(), true))
	assert.NoDirExists(t, filepath.Join(dir, "secrets"), "a dry run makes nothing")
	before, err := os.ReadFile(filepath.Join(dir, ".env"))
	require.NoError(t, err)
	assert.Equal(t, "CACHE_TTL=60", string(before))

	require.NoError(t, c.Run(t.Context(), false))
	username, err := os.ReadFile(filepath.Join(dir, "secrets", "mqtt_username.txt"))
	require.NoError(t, err)
	assert.Equal(t, "bridge", strings.TrimSpace(string(username)))
	env, err := os.ReadFile(filepath.Join(dir, ".env"))
	require.NoError(t, err)
	assert.Equal(t, "CACHE_TTL=60\nF2MESH_UID="+strconv.Itoa(c.UID)+"\nF2MESH_GID="+strconv.Itoa(c.GID)+"\n", string(env))
	require.NoError(t, c.Run(t.Context(), false), "a second time")
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".env"), []byte(`F2MESH_UID="1"`), 0o600))
	require.ErrorContains(t, c.Run(t.Context(), false), "F2MESH_UID=1")
	if os.Geteuid() != 0 {
		c.UID++
		require.ErrorContains(t, c.Run(t.Context(), false), "root")
	}
}

// TestContainerDoctor: what is missing is named with the remedy; a secret file's user
// is the one of its server.
func TestContainerDoctor(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := doctorCommand{HostDoctor: containers.HostDoctor{Compose: dir}}
	err := c.Run(t.Context(), &globals{}, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "docker compose cp registrar:")
	files := containers.SecretFolder(dir)
	for _, name := range []string{credential.SecondSuperuser().Name, mesh.SecretReader} {
		require.NoError(t, files.WriteText(name, name))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.crt"), nil, 0o600))
	target, err := c.Target()
	require.NoError(t, err)
	for name, want := range map[string]string{credential.SecondSuperuser().Name: "postgres", mesh.SecretReader: mesh.RoleReader} {
		user, password, err := target.LogIn(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, want+" "+name, user+" "+password)
	}
	_, _, err = target.LogIn(t.Context(), mesh.SecretRegistry)
	require.ErrorIs(t, err, secret.ErrNotFound)
}

// TestInit: volumes of somebody else, and a broker without passwords, are refused.
func TestInit(t *testing.T) {
	t.Parallel()
	c := containers.Init{Volumes: t.TempDir(), SecretsDir: t.TempDir()}
	require.ErrorContains(t, c.Run(t.Context()), "ENABLE_MQTT_AUTH")
	c.MQTTAuth = true
	require.NoError(t, os.WriteFile(filepath.Join(c.Volumes, "state"), nil, 0o600)) // nothing can be made in it
	require.ErrorContains(t, c.Run(t.Context()), "volume state")
}

// TestBroker: signals and reloads reach the broker, and its end is the container's.
func TestBroker(t *testing.T) {
	t.Parallel()
	dir, run := t.TempDir(), t.TempDir()
	require.NoError(t, os.Symlink(run, filepath.Join(dir, "run")))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	seen := filepath.Join(dir, "seen")
	_, services, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	cert, key := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	authority, err := identity.OpenAuthority(filepath.Join(t.TempDir(), "pki"))
	require.NoError(t, err)
	require.NoError(t, authority.IssueServer(cert, key, []string{"127.0.0.1"}))
	require.NoError(t, mosquitto.ConfigFiles{Dir: dir, CertFile: cert, KeyFile: key, Users: map[string]string{"bridge": "x"}}.Write())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "mosquitto.conf"), []byte("persistence_location "+dir+"\nlistener "+services+"\nlistener 0 "+dir+"/people.sock\n"), 0o600))
	people := freeAddress(t)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "reload"), nil, 0o600))
	log := slog.New(slog.DiscardHandler)
	c := containers.BrokerContainer{
		Dir: dir, RunDir: run, Host: "127.0.0.1", People: people, WebSocket: freeAddress(t),
		Command: []string{"--", "sh", "-c", `trap '' USR1; trap 'echo hup >>"$0"; exit 3' HUP; echo up >>"$0"; while :; do sleep 0.05; done`, seen},
	}
	ended := make(chan error)
	go func() { ended <- c.Run(t.Context(), log) }()
	read := func() string { data, _ := os.ReadFile(seen); return string(data) }
	eventually(t, func() bool { return strings.Contains(read(), "up") }, "the broker does not start")
	opens(t, "tcp", people)
	eventually(t, func() bool { return mosquitto.Reload(dir) == nil }, "the broker is not known")
	require.ErrorContains(t, <-ended, "exit status 3")
	assert.Contains(t, read(), "hup")
	// A program that another test starts just now can hold the lock a moment longer.
	eventually(t, func() bool { return errors.Is(mosquitto.Reload(dir), mosquitto.ErrNotRunning) }, "the broker has not ended")

	for _, command := range [][]string{{"false"}, {filepath.Join(dir, "nothing")}, {"--"}} {
		c.Command = command
		require.Error(t, c.Run(t.Context(), log), command)
	}
	c.Command = []string{"true"}
	require.NoError(t, c.Run(t.Context(), log))
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	number, err := port.Pick(mesh.Loopback, 0)
	require.NoError(t, err)
	return net.JoinHostPort(mesh.Loopback, strconv.Itoa(number))
}

// TestProvision prepares both databases, twice, on one server: roles have the
// passwords of the files and no more rights than they need.
func TestProvision(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	superuser, err := secret.Files(m.State.SecretsDir()).Lookup(t.Context(), mesh.SecretSuperuser)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(m.State.SecretsDir(), credential.SecondSuperuser().Name), []byte(superuser.Reveal()), 0o600))
	address := m.Address(m.Ports().Postgres)
	c := provisionCommand{containers.Provision{Mesh: m.Describe(), CAFile: m.Authority.CAFile(), SecretsDir: m.State.SecretsDir(), Disk: m.State.Dir}}
	c.Mesh.Containers, c.Mesh.Ports.Telemetry = true, c.Mesh.Ports.Postgres
	log := slog.New(slog.DiscardHandler)
	c.Rate = 10
	require.NoError(t, c.Run(t.Context(), log))

	raw, err := m.js.Stream(t.Context(), "RAW")
	require.NoError(t, err)
	assert.Equal(t, 10, stream.DeclaredRate(&raw.CachedInfo().Config))

	reader := filepath.Join(m.State.SecretsDir(), mesh.SecretReader)
	require.NoError(t, os.WriteFile(reader, []byte("another-password-of-the-reader"), 0o600))
	asReader := containers.Healthcheck{
		URLs: []string{"postgres://" + mesh.RoleReader + "@" + address + "/" + mesh.DatabaseTelemetry}, CAFile: c.CAFile, SecretsDir: c.SecretsDir,
		Secret: mesh.SecretReader, Timeout: 10 * time.Second,
	}
	require.Error(t, asReader.Run(t.Context()), "the control: the new password is not in force yet")
	c.VaultAddr = "https://vault:8200"
	file := filepath.Join(m.State.SecretsDir(), mesh.SecretRegistry)
	inForce, err := os.ReadFile(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, []byte("not-the-newest-of-the-registry"), 0o600))
	require.NoError(t, c.Run(t.Context(), log))
	require.NoError(t, os.WriteFile(file, inForce, 0o600))
	require.Error(t, asReader.Run(t.Context()), "with a Vault the files are not the newest")
	c.VaultAddr = ""
	require.NoError(t, c.Run(t.Context(), log))
	require.NoError(t, asReader.Run(t.Context()))

	demo := demoCommand{containerRegistry: containerRegistry{Registry: address, SecretsDir: c.SecretsDir}, Controllers: 4}
	require.NoError(t, demo.Run(t.Context(), &globals{StateDir: m.State.Dir}, slog.New(slog.DiscardHandler)))
	byFiles := registryFlags{containerRegistry: demo.containerRegistry}
	require.NoError(t, (&deviceLogCommand{registryFlags: byFiles, Limit: 10}).Run(t.Context(), &globals{StateDir: m.State.Dir}, slog.New(slog.DiscardHandler)))
	byVault := registryFlags{containerRegistry: demo.containerRegistry, IssuerFlags: mesh.IssuerFlags{Issuer: mesh.IssuerVault}}
	err = byVault.with(t.Context(), &globals{StateDir: m.State.Dir}, slog.New(slog.DiscardHandler), func(*registrar.Core) error { return nil })
	require.ErrorContains(t, err, "needs a Vault", "the files' issuer does not take its place unasked")
	mac := fleet.Demo(4)[3].MAC
	rights, err := os.ReadFile(m.State.Path("mosquitto", "acl"))
	require.NoError(t, err)
	assert.Contains(t, string(rights), "user "+mac.Dashed()+"\n")
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var known int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM fleet."Device" WHERE lower(replace(replace("MacAddress", ':', ''), '-', '')) = $1`, string(mac)).Scan(&known))
	assert.Equal(t, 1, known)
}
