// Package containers has what the mesh of compose.yaml needs: the commands that run inside
// its containers, and the orchestration of backup and restore from their host.
package containers

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// Run writes what the containers start from: certificates, configuration, hashed
// passwords, this program itself. What is right already stays as it is.
func (c *Init) Run(ctx context.Context) (err error) {
	if !c.MQTTAuth {
		return errors.New("ENABLE_MQTT_AUTH=false: anonymous MQTT access is not supported; set it to true")
	}
	c.secrets = secret.Files(c.SecretsDir)
	if err := c.writable(); err != nil {
		return err
	}
	switch {
	case c.Restore:
		err = c.beginRestore(os.Stdin)
	case c.Restored:
		return c.endRestore()
	case mesh.Exists(c.volume("trust", restoringFile)):
		err = errRestoring
	}
	if err != nil {
		return err
	}
	if c.authority, err = identity.OpenAuthority(c.volume("state", "pki")); err != nil {
		return err
	}
	// A volume that no service mounts: it signs whatever it is asked to, for twenty years.
	if err := identity.MoveRootKey(c.volume("state", "pki"), c.volume(mesh.RootFolder)); err != nil {
		return err
	}
	if err := c.copyFile(c.authority.CAFile(), 0o644, "trust", "ca.crt"); err != nil {
		return err
	}
	for _, name := range stateFolders() {
		if err := os.MkdirAll(c.volume("state", name), 0o700); err != nil {
			return fmt.Errorf("preparing volume state: %w", err)
		}
	}
	for _, server := range servers() {
		if err := c.certificate(server); err != nil {
			return err
		}
	}
	for _, write := range []func(context.Context) error{c.mosquitto, c.nats, c.postgres, c.pgbouncer, c.grafana, c.program, c.describe} {
		if err := write(ctx); err != nil {
			return err
		}
	}
	fmt.Println("the containers' files are ready")
	return nil
}

// stateFolders are where further volumes are mounted on the volume state, and secrets/.
func stateFolders() []string {
	return []string{"devices", "grafana", "mosquitto", "nats", "pgbouncer", mesh.RootFolder, "secrets"}
}

// servers are the services that have a certificate. Each finds it in its volume
// <service>-config.
func servers() []string {
	return []string{"mosquitto", "nats", "postgres", "timescaledb", "pgbouncer", "vault", "registrar", "health", "grafana"}
}

// writable refuses volumes of somebody else, with the remedy.
func (c *Init) writable() error {
	volumes, err := os.ReadDir(c.Volumes)
	if err != nil {
		return fmt.Errorf("looking for the volumes: %w", err)
	}
	for _, v := range volumes {
		probe, err := os.CreateTemp(c.volume(v.Name()), ".init-*")
		if err != nil {
			return fmt.Errorf("volume %s is not user %d's: F2MESH_UID was another when it was made; set it back, or remove the volume and lose its data: %w", v.Name(), os.Geteuid(), err)
		}
		if err := errors.Join(probe.Close(), os.Remove(probe.Name())); err != nil {
			return fmt.Errorf("trying volume %s: %w", v.Name(), err)
		}
	}
	return nil
}

// pair is where a server's certificate and key are made. Servers that write no
// further files find them there.
func (c *Init) pair(server string) (certFile, keyFile string) {
	return c.volume(server+"-config", "server.crt"), c.volume(server+"-config", "server.key")
}

func (c *Init) certificate(server string) error {
	cert, key := c.pair(server)
	names := append([]string{server, "localhost", "127.0.0.1", "::1"}, c.ServerNames...)
	if err := c.authority.IssueServer(cert, key, names); err != nil {
		return fmt.Errorf("for %s: %w", server, err)
	}
	if server == "mosquitto" {
		return nil // whom it trusts is the registrar's to say
	}
	return c.copyFile(c.authority.CAFile(), 0o644, server+"-config", "ca.crt")
}

func (c *Init) mosquitto(ctx context.Context) error {
	users, err := mesh.LogIns(ctx, c.secrets, credential.MQTT)
	if err != nil {
		return err
	}
	cas, crls, err := c.firstLists(ctx)
	if err != nil {
		return err
	}
	for _, name := range []string{"data", "run"} { // further volumes are mounted there
		if err := os.MkdirAll(c.volume("mosquitto-config", name), 0o700); err != nil {
			return fmt.Errorf("preparing volume mosquitto-config: %w", err)
		}
	}
	cert, key := c.pair("mosquitto")
	return mosquitto.ConfigFiles{
		Dir: c.volume("mosquitto-config"), CertFile: cert, KeyFile: key, CAs: cas, CRLs: crls,
		Users: users, KeepUsers: c.VaultAddr != "", Retained: c.Retained,
	}.Write()
}

// firstListLife is how long the registrar may take to come up for the first time.
const firstListLife = 7 * 24 * time.Hour

// firstLists are the broker's CAs, and revocation lists with nothing on them: what it
// needs to start before the registrar has asked the registry.
func (c *Init) firstLists(ctx context.Context) (cas, crls []byte, err error) {
	all, err := c.authority.Authorities(ctx)
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	for _, issuer := range all.Issuing {
		der, err := c.authority.SignList(ctx, issuer, &x509.RevocationList{
			Number: big.NewInt(0), ThisUpdate: now, NextUpdate: now.Add(firstListLife),
		})
		if err != nil {
			return nil, nil, err
		}
		crls = append(crls, identity.EncodeList(der)...)
	}
	return all.Bundle(), crls, nil
}

func (c *Init) nats(ctx context.Context) error {
	passwords, err := mesh.LogIns(ctx, c.secrets, credential.NATS)
	if err != nil {
		return err
	}
	cert, key := c.pair("nats")
	return natsserver.ConfigFiles{
		Dir: c.volume("nats-config"), At: "/etc/nats", StoreDir: "/data", CertFile: cert, KeyFile: key,
		Passwords: passwords, KeepPasswords: c.VaultAddr != "", Filling: c.Restore,
	}.Write()
}

func (c *Init) postgres(ctx context.Context) error {
	if err := c.superusers(ctx); err != nil {
		return err
	}
	for server, settings := range map[string]map[string]string{
		"postgres":    {},
		"timescaledb": timescaleSettings(),
	} {
		cert, key := c.pair(server)
		err := postgres.ConfigFiles{
			Dir: c.volume(server + "-config"), At: "/etc/postgresql", DataDir: "/var/lib/postgresql/data/pgdata",
			SocketDir: "/var/run/postgresql", CertFile: cert, KeyFile: key, Settings: settings,
		}.Write()
		if err != nil {
			return err
		}
	}
	return nil
}

// pgbouncer gives the pooler its own password. It is always that of the secret file,
// with a Vault too: no service reads it, so nobody can have replaced it there.
func (c *Init) pgbouncer(ctx context.Context) error {
	user, password, err := mesh.LogIn(ctx, c.secrets, mesh.SecretPgBouncer)
	if err != nil {
		return err
	}
	return pgbouncer.ConfigFiles{Dir: c.volume("pgbouncer-config"), User: user, Password: password}.Write()
}

// superusers refuses a secret that a new server could not take: it has the first of the two users alone.
func (c *Init) superusers(ctx context.Context) error {
	for server, name := range map[string]string{"postgres": mesh.SecretSuperuser, "timescaledb": credential.SecondSuperuser().Name} {
		user, _, err := mesh.LogIn(ctx, c.secrets, name)
		if err != nil {
			return err
		}
		if user != postgres.Superuser && !mesh.Exists(c.volume(server+"-data", "pgdata", "PG_VERSION")) {
			return fmt.Errorf("the secret %s is for user %s, and the volume %s-data is empty: a new server has the user %s alone. Remove secrets/%s%s; ./task compose:up makes another",
				name, user, server, postgres.Superuser, name, credential.Suffix)
		}
	}
	return nil
}

// grafana gives Grafana the reader's login.
func (c *Init) grafana(ctx context.Context) error {
	return mesh.WriteDashboardLogin(ctx, c.secrets, c.volume("grafana-config"))
}

// describe tells the operator's commands where the servers are.
func (c *Init) describe(context.Context) error {
	return mesh.State{Dir: c.volume("state")}.Save(Describe("/etc/f2mesh/ca.crt"))
}

// timescaleSettings are postgresSettings with TimescaleDB, which the image has.
func timescaleSettings() map[string]string {
	settings := mesh.PostgresSettings()
	settings["shared_preload_libraries"] = "timescaledb"
	settings["timescaledb.telemetry_level"] = "off"
	settings["max_worker_processes"] = "24"
	settings["timescaledb.max_background_workers"] = "12"
	return settings
}

// program puts this program where the containers of other images find it: it asks
// their servers whether they are healthy, and reloads the broker.
func (c *Init) program(context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	return c.copyFile(self, 0o755, "program", "f2mesh")
}

// copyFile replaces a file of a volume in one step.
func (c *Init) copyFile(source string, mode os.FileMode, elements ...string) error {
	data, err := os.ReadFile(source) //nolint:gosec // a file of our own
	if err != nil {
		return err
	}
	to := c.volume(elements...)
	if err := renameio.WriteFile(to, data, mode, renameio.WithTempDir(filepath.Dir(to)), renameio.WithStaticPermissions(mode)); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	return nil
}
