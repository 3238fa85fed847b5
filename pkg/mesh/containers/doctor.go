package containers

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// HostDoctor has doctor check the mesh in its containers, from the machine that runs them.
type HostDoctor struct {
	Compose string `help:"Directory of compose.yaml: check the mesh in its containers, from this host." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	CA      string `help:"In containers: CA certificate of the mesh. Default: ca.crt in --compose." name:"ca" placeholder:"FILE" type:"path" group:"Containers (compose.yaml)"`
	Devices string `help:"In containers: directory of device bundles to test with. Without it, checks that need a device are skipped." placeholder:"DIR" type:"existingdir" group:"Containers (compose.yaml)"`
	Exposed bool   `help:"In containers: the databases' ports are published (compose.ports.yaml)." env:"EXPOSE_DATABASE_PORTS" name:"database-ports" group:"Containers (compose.yaml)"`
}

// Target is the mesh in containers: its published ports, and its secret files.
func (c *HostDoctor) Target() (*doctor.Target, error) {
	ca := cmp.Or(c.CA, filepath.Join(c.Compose, "ca.crt"))
	if _, err := os.Stat(ca); err != nil {
		return nil, fmt.Errorf("the mesh's CA is needed (`docker compose cp registrar:/etc/f2mesh/ca.crt .`): %w", err)
	}
	m := &doctor.Target{
		Dir: c.Compose, Containers: true, Devices: c.Devices, Host: mesh.Loopback, Public: mesh.Loopback, CAFile: ca, LogIn: c.logIn,
		Ports: doctor.TargetPorts{MQTT: 1883, MQTTTLS: 8883, People: 1884, WebSocket: 9001, NATS: 4222, PgBouncer: 6432, HTTP: 8000, EST: 8443},
		Secrets: slices.DeleteFunc(ContainerSecrets(), func(name string) bool {
			return name == credential.Username // no password
		}),
		Now: time.Now, Free: doctor.DiskFree,
	}
	if c.Exposed {
		m.Ports.Postgres, m.Ports.Telemetry = 5432, 5433
	}
	return m, nil
}

// logIn is that of a secret file. What is no credential, such as the health API's password, is for any user.
func (c *HostDoctor) logIn(ctx context.Context, name string) (user, password string, err error) {
	v, err := SecretFolder(c.Compose).Lookup(ctx, name)
	if err != nil {
		return "", "", fmt.Errorf("reading secret %s: %w", name, err)
	}
	user = "f2mesh"
	if known, ok := credential.Find(name); ok {
		user = known.User
	}
	return v.Username(user), v.Reveal(), nil
}
