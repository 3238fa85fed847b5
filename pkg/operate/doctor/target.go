package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
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

// Target is the running mesh that is checked.
type Target struct {
	// Dir is the mesh's state directory, PID the process of `f2mesh up`.
	Dir string
	PID int
	// Containers is true for a mesh of compose.yaml: Dir has its secret files, everything
	// else is in volumes, and Ports are the published ones.
	Containers bool
	// Devices is the directory of device bundles. Default: the one in Dir.
	Devices string
	// Host is where services listen, and Public where controllers and people connect, with
	// TLS.
	Host, Public string
	Ports        TargetPorts
	// CAFile is what the servers' certificates must chain to.
	CAFile string
	// LogIn returns the current user and password of a credential.
	LogIn func(ctx context.Context, name string) (user, password string, err error)
	// Secrets are the names of all credentials, and of the health API's password.
	Secrets []string
	// Vault has the mesh's secrets; nil if none is known.
	Vault *vault.Client
	// Docker is the socket of the Docker API.
	Docker string
	// Vulncheck is the command that looks the program up in Go's vulnerability database;
	// empty if it is not here.
	Vulncheck []string
	// Now returns the time, Free how many bytes are free on a directory's disk.
	Now  func() time.Time
	Free func(path string) (uint64, error)
}

// TargetPorts are where the mesh's servers listen; 0 for one that does not run or cannot be
// reached from here. HTTP is the health API. Telemetry is the PostgreSQL server of that
// database, if it has one of its own.
type TargetPorts struct{ MQTT, MQTTTLS, People, WebSocket, NATS, Postgres, Telemetry, PgBouncer, HTTP, EST int }

// public are the ports for controllers and people, which Target.Public exposes.
func (p TargetPorts) public() []int { return []int{p.MQTTTLS, p.WebSocket, p.HTTP, p.EST} }

// all are those, and the others, which stay on loopback.
func (p TargetPorts) all() []int {
	return append(p.public(), p.MQTT, p.People, p.NATS, p.Postgres, p.Telemetry, p.PgBouncer)
}

func (t *Target) path(elements ...string) string {
	return filepath.Join(append([]string{t.Dir}, elements...)...)
}

func (t *Target) address(port int) string {
	host := t.Host
	if slices.Contains(t.Ports.public(), port) {
		host = t.Public
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// tls is for a client of the mesh's servers, which may have certificates.
func (t *Target) tls(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: must(identity.CertPool(t.CAFile)), ServerName: t.Host, MinVersion: tls.VersionTLS12, Certificates: certificates,
	}
}

// login is a user and a password.
type login struct{ user, password string }

func (t *Target) login(ctx context.Context, secret string) login {
	user, password, err := t.LogIn(ctx, secret)
	ensure(err)
	return login{user, password}
}

// passwords are those of all credentials, by name.
func (t *Target) passwords(ctx context.Context) map[string]string {
	all := map[string]string{}
	for _, name := range t.Secrets {
		all[name] = t.login(ctx, name).password
	}
	return all
}

// device is a demo controller whose bundle this machine has.
type device struct {
	mac         string // with dashes
	certificate tls.Certificate
}

// devices returns the first n bundles that are complete, or fewer.
func (t *Target) devices(n int) (found []device) {
	for _, folder := range must(filepath.Glob(filepath.Join(t.bundles(), "*"))) {
		certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "device.crt"), filepath.Join(folder, "device.key"))
		if err != nil {
			continue // the controller made its own key, or the bundle is being written
		}
		if found = append(found, device{filepath.Base(folder), certificate}); len(found) == n {
			break
		}
	}
	return found
}

// needDevices returns the first n bundles, which must be there.
func (t *Target) needDevices(n int) []device {
	found := t.devices(n)
	need(len(found) == n, "this machine does not have the bundles of two devices: register two with `f2mesh device register`, without --csr")
	return found
}

func (t *Target) bundles() string { return cmp.Or(t.Devices, t.path("devices")) }

// logs are the files that the mesh writes its log to. There must be one.
func (t *Target) logs() []string {
	need(!t.Containers, "the Docker engine has the logs: search the output of `docker compose logs`")
	files := []string{t.path("f2mesh.log"), t.path("up.out")}
	for _, fd := range []string{"1", "2"} {
		target, _ := os.Readlink("/proc/" + strconv.Itoa(t.PID) + "/fd/" + fd)
		files = append(files, target)
	}
	slices.Sort(files)
	files = slices.DeleteFunc(slices.Compact(files), func(path string) bool {
		info, err := os.Stat(path)
		return err != nil || !info.Mode().IsRegular()
	})
	need(len(files) > 0, "the mesh writes no log file: search where its output goes")
	return files
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// marker makes an attempt recognizable.
func marker() string { return "doctor" + strings.ToLower(rand.Text()[:12]) }
