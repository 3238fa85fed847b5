package compose

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

// image puts into a container what its image would: our program and nothing else,
// or another's program of this machine.
func image(t *testing.T, s *types.ServiceConfig, c *container) {
	t.Helper()
	if own(s) {
		c.Mounts = append(c.Mounts, mountPoint{Source: program(t), Target: "/usr/local/bin/f2mesh", ReadOnly: true})
		c.Args = append([]string{"/usr/local/bin/f2mesh"}, arguments(s)...)
		return
	}
	c.Mounts = append(c.Mounts, mountPoint{Source: "/usr", Target: "/usr", ReadOnly: true})
	if exists("/etc/ld.so.cache") {
		c.Mounts = append(c.Mounts, mountPoint{Source: "/etc/ld.so.cache", Target: "/etc/ld.so.cache", ReadOnly: true})
	}
	for _, dir := range []string{"lib", "lib64", "sbin"} {
		c.Links["/"+dir] = "usr/" + dir
	}
	switch s.Name {
	case "nats":
		c.Links["/bin"] = "usr/bin"
		c.Mounts = append(c.Mounts, mountPoint{Source: natsServer(t), Target: "/opt/standin/nats-server", ReadOnly: true})
		c.Env = append(c.Env, "PATH=/opt/standin")
	case "postgres", "timescaledb":
		c.Links["/bin"] = "usr/bin"
		c.Files["/opt/standin/entrypoint"] = postgresEntrypoint
		c.Args = append([]string{"/bin/sh", "/opt/standin/entrypoint"}, c.Args...)
		programs := postgresPrograms(t)
		if !strings.HasPrefix(programs, "/usr/") { // its libraries and its share folder lie around it
			outside := installation(t, programs)
			c.Mounts = append(c.Mounts, mountPoint{Source: outside, Target: "/opt/postgresql", ReadOnly: true})
			programs = "/opt/postgresql" + strings.TrimPrefix(programs, outside)
		}
		c.Env = append(c.Env, "PATH="+programs+":/usr/bin")
	case "vault", "prometheus":
		c.Mounts = append(c.Mounts, mountPoint{Source: standin(s.Name), Target: "/bin/" + s.Name, ReadOnly: true})
	default:
		c.Links["/bin"] = "usr/bin"
	}
}

// standin is this machine's program in place of an image, "" if there is none.
func standin(name string) string {
	if built, err := filepath.Abs("../../bin/tools/" + name); err == nil && exists(built) {
		if target, err := filepath.EvalSymlinks(built); err == nil {
			return target
		}
	}
	found, _ := exec.LookPath(name)
	return found
}

// postgresEntrypoint is what the official image's does, as far as it touches what
// we give it: it makes the data, starts a server that has no TCP, logs in through
// its socket, and stops it again.
const postgresEntrypoint = `set -eu
mkdir -p "$PGDATA"
if ! [ -s "$PGDATA/PG_VERSION" ]; then
	PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
	export PGPASSWORD
	echo "$PGPASSWORD" >/tmp/password
	initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password $POSTGRES_INITDB_ARGS
	rm /tmp/password
	shift
	pg_ctl --pgdata="$PGDATA" -w -o "$* -c listen_addresses='' -p 5432" start
	psql --username="$POSTGRES_USER" --no-password --dbname=postgres -c 'SELECT 1'
	pg_ctl --pgdata="$PGDATA" -m fast -w stop
	set -- postgres "$@"
	unset PGPASSWORD
fi
exec "$@"
`

// postgresPrograms is the folder of initdb and postgres: the one that F2MESH_POSTGRES_BIN
// names, as for f2mesh, or else the newest that Debian installed.
func postgresPrograms(t *testing.T) string {
	t.Helper()
	if chosen := os.Getenv("F2MESH_POSTGRES_BIN"); chosen != "" {
		require.FileExists(t, filepath.Join(chosen, "initdb"), "F2MESH_POSTGRES_BIN")
		return chosen
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	require.NoError(t, err)
	if len(found) == 0 {
		missing(t, "PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	return filepath.Dir(found[len(found)-1])
}

// installation is the folder above the programs that has their share folder, too.
func installation(t *testing.T, programs string) string {
	t.Helper()
	dir := programs
	for dir != "/" && !exists(filepath.Join(dir, "share")) {
		dir = filepath.Dir(dir)
	}
	require.NotEqual(t, "/", dir, "no folder above %s has a share folder", programs)
	return dir
}

// hasTimescale reports whether this machine's PostgreSQL has the extension.
func hasTimescale(t *testing.T) bool {
	t.Helper()
	return exists(filepath.Join(postgresPrograms(t), "../lib/timescaledb.so"))
}

var (
	buildingServer sync.Once
	serverAt       string
	errServer      error
)

// natsServer builds the stand-alone server of the version that go.mod names, which
// is the image's.
func natsServer(t *testing.T) string {
	t.Helper()
	at := filepath.Join(filepath.Dir(program(t)), "nats-server")
	buildingServer.Do(func() {
		build := exec.CommandContext(context.Background(), "go", "build", "-o", at, "github.com/nats-io/nats-server/v2")
		build.Dir, build.Stderr = root(t), os.Stderr
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		serverAt, errServer = at, build.Run()
	})
	require.NoError(t, errServer)
	if serverAt == "" {
		require.NoError(t, errors.New("nats-server was not built"))
	}
	return serverAt
}
