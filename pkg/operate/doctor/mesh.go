package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// Mesh is where the running mesh is that is looked at.
type Mesh struct {
	// Dir is the mesh's state directory, PID the process of `f2mesh up`.
	Dir string
	PID int
	// Containers is a mesh of compose.yaml: Dir has its secret files, all else is in
	// volumes, and Ports are the published ones.
	Containers bool
	// Devices is the folder of device bundles; "": the one in Dir.
	Devices string
	// Host is where services listen, and Public where controllers and people come in,
	// each with TLS.
	Host, Public string
	Ports        Ports
	// CAFile is what the servers' certificates must chain to.
	CAFile string
	// LogIn answers the user and the password of a credential, now.
	LogIn func(ctx context.Context, name string) (user, password string, err error)
	// Secrets are the names of all credentials, and of the health API's password.
	Secrets []string
	// Vault is where the mesh's secrets are; nil: none is known.
	Vault *vault.Client
	// Docker is the socket of the Docker API.
	Docker string
	// Vulncheck is the command that looks the program up in Go's vulnerability
	// database; none if it is not here.
	Vulncheck []string
	// Now is the time; Free tells how many bytes a folder's disk has left.
	Now  func() time.Time
	Free func(path string) (uint64, error)
}

// Ports are where the parts listen; 0 for one that is not there, or not reached from
// here. HTTP is the health API's, and Telemetry is PostgreSQL's for that database, if it has a server of its own.
type Ports struct{ MQTT, MQTTTLS, People, WebSocket, NATS, Postgres, Telemetry, PgBouncer, HTTP, EST int }

// public are those that controllers and people come in by.
func (p Ports) public() []int { return []int{p.MQTTTLS, p.WebSocket, p.HTTP, p.EST} }

// private are the others, which stay on loopback.
func (p Ports) private() []int {
	return []int{p.MQTT, p.People, p.NATS, p.Postgres, p.Telemetry, p.PgBouncer}
}

func (m *Mesh) path(elements ...string) string {
	return filepath.Join(append([]string{m.Dir}, elements...)...)
}

func (m *Mesh) address(port int) string { return net.JoinHostPort(m.host(port), strconv.Itoa(port)) }

func (m *Mesh) host(port int) string {
	if slices.Contains(m.Ports.public(), port) {
		return m.Public
	}
	return m.Host
}

// tls is for a client of the mesh's servers.
func (m *Mesh) tls() (*tls.Config, error) {
	pool, err := identity.Pool(m.CAFile)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, ServerName: m.Host, MinVersion: tls.VersionTLS12}, nil
}

// device is a demo controller that this machine has the bundle of.
type device struct {
	mac         string // with dashes
	certificate tls.Certificate
}

// errNoDevices means that the mesh has no two bundles to try with.
var errNoDevices = errors.New("no two device bundles with their keys are here: register two controllers without --csr, if only for this check")

// devices are the first bundles that are complete.
func (m *Mesh) devices(n int) ([]device, error) {
	folders, err := filepath.Glob(filepath.Join(m.bundles(), "*"))
	if err != nil {
		return nil, err
	}
	slices.Sort(folders)
	var found []device
	for _, folder := range folders {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "device.crt"), filepath.Join(folder, "device.key"))
		if err != nil {
			continue // it made its own key, or is still being written
		}
		if found = append(found, device{filepath.Base(folder), certificate}); len(found) == n {
			return found, nil
		}
	}
	return nil, errNoDevices
}

func (m *Mesh) bundles() string { return cmp.Or(m.Devices, m.path("devices")) }

// logs are the files that the mesh writes its log to.
func (m *Mesh) logs() []string {
	files := []string{m.path("f2mesh.log"), m.path("up.out")}
	for _, fd := range []string{"1", "2"} {
		if target, err := os.Readlink("/proc/" + strconv.Itoa(m.PID) + "/fd/" + fd); err == nil && filepath.IsAbs(target) {
			files = append(files, target)
		}
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || !info.Mode().IsRegular()
	})
}

// marker names one attempt, so that it can be told from others.
func marker() string { return "doctor" + strings.ToLower(rand.Text()[:12]) }
