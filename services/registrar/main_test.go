package registrar

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
)

const (
	device   topic.MAC = "e4fd45f654be"
	neighbor topic.MAC = "e4fd45f654bf"
	patience           = 20 * time.Second
)

var operator = Origin{Actor: "operator"}

// shared has a database template that is migrated.
var shared postgrestest.Shared

const template = "registry_template"

func TestMain(m *testing.M) {
	if place := os.Getenv(crashVariable); place != "" {
		os.Exit(crashAt(place))
	}
	os.Exit(shared.Main(m, func(ctx context.Context, c *postgres.Cluster) error {
		admin, err := pgxpool.New(ctx, postgrestest.DSN(c, "postgres"))
		if err != nil {
			return err
		}
		defer admin.Close()
		if _, err := admin.Exec(ctx, "CREATE DATABASE "+template); err != nil {
			return err
		}
		pool, err := pgxpool.New(ctx, postgrestest.DSN(c, template))
		if err != nil {
			return err
		}
		defer pool.Close()
		return Migrate(ctx, pool)
	}))
}

// bench is a registrar with an authority, a registry and a broker of its own.
type bench struct {
	*Registrar
	t         *testing.T
	dir       string
	dsn       string
	authority *identity.Authority
	broker    *mosquitto.Broker
}

const (
	registrarPassword = "for this test only"
	bridgePassword    = "for this test too"
)

// newBench makes a bench; its broker does not run yet.
func newBench(t *testing.T) *bench {
	t.Helper()
	dir := accounttest.TempDir(t)
	b := &bench{t: t, dir: dir, dsn: shared.NewDatabase(t, template)}
	var err error
	b.authority, err = identity.OpenAuthority(filepath.Join(dir, "certs"))
	require.NoError(t, err)
	b.Registrar = b.another()
	return b
}

// another is a registrar on the same files and registry, as another process has it.
func (b *bench) another() *Registrar {
	b.t.Helper()
	r, err := open(b.t.Context(), b.dir, b.dsn, slog.New(slog.NewTextHandler(b.t.Output(), nil)))
	require.NoError(b.t, err)
	b.t.Cleanup(r.cfg.Pool.Close)
	return r
}

func open(ctx context.Context, dir, dsn string, log *slog.Logger) (*Registrar, error) {
	authority, err := identity.OpenAuthority(filepath.Join(dir, "certs"))
	if err != nil {
		return nil, err
	}
	gate, err := mosquitto.OpenGate(filepath.Join(dir, "mosquitto"))
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.New(context.WithoutCancel(ctx), dsn)
	if err != nil {
		return nil, err
	}
	return New(Config{
		Devices: filepath.Join(dir, "devices"), Pool: pool, Issuer: authority, ServerCAs: authority.CAFile(), Gate: gate, Log: log,
		Credential: func(context.Context) (string, string, error) { return "registrar", registrarPassword, nil },
	})
}

// start starts the broker.
func (b *bench) start() *bench {
	b.t.Helper()
	_, err := b.Refresh(b.t.Context())
	require.NoError(b.t, err)
	cert, key := filepath.Join(b.dir, "server.crt"), filepath.Join(b.dir, "server.key")
	require.NoError(b.t, b.authority.IssueServer(cert, key, []string{"127.0.0.1"}))
	b.broker, err = mosquitto.Start(b.t.Context(), mosquitto.Config{
		Dir: filepath.Join(b.dir, "mosquitto"), CertFile: cert, KeyFile: key, Log: slog.New(slog.DiscardHandler),
		Users: map[string]string{"bridge": bridgePassword, "registrar": registrarPassword},
	})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { assert.NoError(b.t, b.broker.Kill()) })
	return b
}

func macOf(i int) topic.MAC { return topic.MAC(fmt.Sprintf("e4fd45%06x", i)) }

func requests(n int) []Request {
	all := make([]Request, n)
	for i := range all {
		all[i] = Request{MAC: macOf(i), SerialNumber: fmt.Sprintf("SN-%d", i)}
	}
	return all
}

func (b *bench) register(requests ...Request) []RequestResult {
	b.t.Helper()
	results, err := b.Register(b.t.Context(), operator, requests...)
	require.NoError(b.t, err)
	require.Len(b.t, results, len(requests))
	return results
}

func (b *bench) registerAll(requests ...Request) []RequestResult {
	b.t.Helper()
	results := b.register(requests...)
	for _, r := range results {
		require.NoError(b.t, r.Err)
		require.True(b.t, r.Issued)
	}
	return results
}

func (b *bench) pair(mac topic.MAC) tls.Certificate {
	b.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(b.Bundle(mac), "device.crt"), filepath.Join(b.Bundle(mac), "device.key"))
	require.NoError(b.t, err)
	return pair
}

// admitted reports whether the broker lets the certificate in. It opens no MQTT session, so
// that the device's own goes on.
func (b *bench) admitted(pair tls.Certificate) bool {
	b.t.Helper()
	config := b.tls(pair)
	config.MaxVersion = tls.VersionTLS12 // refused within the handshake
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.broker.TLSAddress())
	require.NoError(b.t, err)
	defer func() { _ = conn.Close() }()
	config.ServerName = "127.0.0.1"
	err = tls.Client(conn, config).HandshakeContext(ctx)
	require.NoError(b.t, ctx.Err())
	return err == nil
}

func (b *bench) tls(pair tls.Certificate) *tls.Config {
	b.t.Helper()
	pool := x509.NewCertPool()
	text, err := os.ReadFile(b.authority.CAFile())
	require.NoError(b.t, err)
	require.True(b.t, pool.AppendCertsFromPEM(text))
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
}

func (b *bench) options(pair tls.Certificate) *mqtt.ClientOptions {
	b.t.Helper()
	return mqtt.NewClientOptions().AddBroker("ssl://" + b.broker.TLSAddress()).SetAutoReconnect(false).SetConnectTimeout(patience).
		SetTLSConfig(b.tls(pair))
}

func (b *bench) connect(options *mqtt.ClientOptions) mqtt.Client {
	b.t.Helper()
	client := mqtt.NewClient(options)
	wait(b.t, client.Connect())
	b.t.Cleanup(func() { client.Disconnect(0) })
	return client
}

// listen is the bridge: it passes on what arrives.
func (b *bench) listen(filter string, arrived func(mqtt.Message)) {
	b.t.Helper()
	client := b.connect(mqtt.NewClientOptions().AddBroker("tcp://" + b.broker.Address()).SetUsername("bridge").SetPassword(bridgePassword))
	wait(b.t, client.Subscribe(filter, 1, func(_ mqtt.Client, m mqtt.Message) { arrived(m) }))
}

func wait(t *testing.T, token mqtt.Token) {
	t.Helper()
	require.True(t, token.WaitTimeout(patience))
	require.NoError(t, token.Error())
}

// publishes tells whether the device's messages get through.
func (b *bench) publishes(mac topic.MAC) bool {
	b.t.Helper()
	arrived := make(chan string, 10)
	b.listen("+/f2-"+string(mac)+"/#", func(m mqtt.Message) { arrived <- string(m.Payload()) })
	b.listen("stat/f2-"+mac.Dashed()+"/#", func(m mqtt.Message) { arrived <- string(m.Payload()) })
	client := b.connect(b.options(b.pair(mac)))
	wait(b.t, client.Publish("tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", 1, false, "bare"))
	wait(b.t, client.Publish("stat/f2-"+mac.Dashed()+"/access-control-mode/J1/strike-1", 1, false, "dashed"))
	got := map[string]bool{}
	for len(got) < 2 {
		select {
		case payload := <-arrived:
			got[payload] = true
		case <-time.After(500 * time.Millisecond):
			assert.Empty(b.t, got, "one spelling only")
			return false
		}
	}
	return true
}

// whole checks that the registry, the bundles and the broker's list agree.
func (b *bench) whole() []Device {
	b.t.Helper()
	all, problems := b.look()
	assert.Empty(b.t, problems)
	return all
}

// look answers the registry, and where bundles, the broker's list or what is left
// of operations do not agree with it.
func (b *bench) look() (all []Device, problems []string) {
	b.t.Helper()
	all, err := b.List(b.t.Context())
	require.NoError(b.t, err)
	listed, bundles := b.inACL(), b.bundles()
	note := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, d := range all {
		certificate, complete := identity.DeviceCertificate(b.Bundle(d.MAC), d.OwnKey)
		if !complete || serialOf(certificate) != d.Certificate {
			note("%s has not the bundle that the registry says", d.MAC)
		}
		want := 0
		if d.Status == Active {
			want = 1
		}
		if listed[d.MAC] != want {
			note("%s is %d times in the ACL, not %d", d.MAC, listed[d.MAC], want)
		}
		delete(listed, d.MAC)
		delete(bundles, d.MAC)
	}
	for mac := range listed {
		note("%s is in the ACL and not registered", mac)
	}
	for mac := range bundles {
		note("%s has a bundle and is not registered", mac)
	}
	left, err := filepath.Glob(filepath.Join(b.cfg.Devices, ".*", "*"))
	require.NoError(b.t, err)
	for _, name := range left {
		note("%s is left", name)
	}
	var evictions int
	require.NoError(b.t, b.cfg.Pool.QueryRow(b.t.Context(), "SELECT count(*) FROM eviction").Scan(&evictions))
	if evictions > 0 {
		note("%d sessions are to be ended", evictions)
	}
	return all, problems
}

func (b *bench) inACL() map[topic.MAC]int {
	b.t.Helper()
	acl, err := os.ReadFile(filepath.Join(b.dir, "mosquitto", "acl"))
	require.NoError(b.t, err)
	named := map[topic.MAC]int{}
	_, controllers, found := strings.Cut(string(acl), "\n# Controllers,")
	require.True(b.t, found)
	for line := range strings.Lines(controllers) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "user "); ok {
			mac, err := topic.ParseMAC(name)
			require.NoError(b.t, err)
			named[mac]++
		}
	}
	return named
}

func (b *bench) bundles() map[topic.MAC]bool {
	b.t.Helper()
	entries, err := os.ReadDir(b.cfg.Devices)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(b.t, err)
	}
	all := map[topic.MAC]bool{}
	for _, e := range entries {
		if mac, err := topic.ParseMAC(e.Name()); err == nil {
			all[mac] = true
		}
	}
	return all
}
