package compose

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	building  sync.Once
	programAt string
	errBuild  error
)

// program builds f2mesh as the Dockerfile does, once for all tests.
func program(t *testing.T) string {
	t.Helper()
	building.Do(func() {
		var dir string
		if dir, errBuild = os.MkdirTemp("", "f2mesh-compose-*"); errBuild != nil { //nolint:usetesting // it outlives the test that comes first
			return
		}
		programAt = filepath.Join(dir, "f2mesh")
		build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-buildvcs=false", "-tags=timetzdata", "-pgo=off", "-o", programAt, "./cmd/f2mesh")
		build.Dir, build.Stderr = root(t), os.Stderr
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly")
		errBuild = build.Run()
	})
	require.NoError(t, errBuild)
	return programAt
}

func TestMain(m *testing.M) {
	if os.Getenv(containerVariable) != "" {
		enterContainer() // does not return
	}
	if os.Getenv(dockerVariable) != "" && filepath.Base(os.Args[0]) == "docker" {
		enterDocker()
	}
	if os.Getenv(publishVariable) != "" {
		enterPublisher()
	}
	code := m.Run()
	if programAt != "" {
		_ = os.RemoveAll(filepath.Dir(programAt))
	}
	os.Exit(code)
}

// parse lets the program itself judge a command line and an environment.
func parse(t *testing.T, s *types.ServiceConfig, arguments []string) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), append([]string{"--check-config"}, arguments...)...)
	cmd.Env = environment(s)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Logf("%v: %s", arguments, out)
	}
	return err
}

// environment is what the container's program sees: the image's, and the service's.
func environment(s *types.ServiceConfig) []string {
	all := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for name, value := range s.Environment {
		if value != nil {
			all = append(all, name+"="+strings.ReplaceAll(*value, "$$", "$"))
		}
	}
	return all
}

// arguments are what f2mesh gets to see of a service's command, nil if it runs
// another program.
func arguments(s *types.ServiceConfig) []string {
	switch {
	case own(s) && len(s.Entrypoint) == 0:
		return s.Command
	case own(s) && s.Entrypoint[0] == "/usr/local/bin/f2mesh":
		return slices.Concat(s.Entrypoint[1:], s.Command)
	case slices.Equal(s.Entrypoint, []string{"/opt/f2mesh/f2mesh"}):
		return s.Command
	}
	return nil
}

// TestCommands: the program takes every command, setting and health check of
// compose.yaml. Folders that only a container has are made up.
func TestCommands(t *testing.T) {
	t.Parallel()
	for name, s := range load(t, everything).Services {
		if args := arguments(&s); args != nil {
			assert.NoError(t, parse(t, &s, hereOnly(t, args)), name)
		} else {
			assert.False(t, own(&s), "%s has a command that was not tried", name)
		}
		if !oneShot(&s) {
			assert.NoError(t, parse(t, &s, s.HealthCheck.Test[2:]), name)
		}
	}
}

// hereOnly replaces folders that must exist by one that does.
func hereOnly(t *testing.T, args []string) []string {
	t.Helper()
	args = slices.Clone(args)
	for i, a := range args {
		if name, _, ok := strings.Cut(a, "="); ok && strings.HasSuffix(name, "dir") {
			args[i] = name + "=" + t.TempDir()
		}
	}
	if args[0] == "init" {
		args = append(args, "--volumes="+t.TempDir())
	}
	return args
}

// TestCommandsSee is the control: an unknown command, flag or setting is refused.
func TestCommandsSee(t *testing.T) {
	t.Parallel()
	bridge := load(t, everything).Services["bridge"]
	require.NoError(t, parse(t, &bridge, bridge.Command))
	require.Error(t, parse(t, &bridge, []string{"brigde"}))
	require.Error(t, parse(t, &bridge, []string{"bridge", "--unknown"}))
	bridge.Environment["BRIDGE_BATCH"] = new("100000")
	assert.Error(t, parse(t, &bridge, bridge.Command))
}

// TestSettingsAreRead: every variable that a service of ours is given is one that
// its command knows. (One that is misspelt would be passed over in silence.)
func TestSettingsAreRead(t *testing.T) {
	t.Parallel()
	for name, s := range load(t, everything).Services {
		if arguments(&s) != nil {
			assert.Empty(t, unknownSettings(t, &s), name)
		}
	}
	bridge := load(t, everything).Services["bridge"]
	bridge.Environment["MQTT_ULR"] = new("tcp://mosquitto:1883")
	assert.Equal(t, []string{"MQTT_ULR"}, unknownSettings(t, &bridge), "the control")
}

func unknownSettings(t *testing.T, s *types.ServiceConfig) (unknown []string) {
	t.Helper()
	words := arguments(s)
	if s.Name == "operator" { // which runs any command
		words = []string{"secret", "rotate"}
	}
	if n := slices.IndexFunc(words, func(w string) bool { return strings.HasPrefix(w, "-") }); n > 0 {
		words = words[:n]
	}
	help, err := exec.CommandContext(t.Context(), program(t), append(slices.Clone(words), "--help")...).Output()
	require.NoError(t, err)
	// And the Go runtime's, and that of `docker compose exec registrar f2mesh device ...`.
	known := strings.Join(strings.Fields(string(help)), " ") + " $GOMEMLIMIT $F2MESH_REGISTRY"
	for variable := range s.Environment {
		if !strings.Contains(known, "$"+variable+")") && !strings.Contains(known, "$"+variable) {
			unknown = append(unknown, variable)
		}
	}
	return unknown
}

// TestMQTTAuthStays: ENABLE_MQTT_AUTH=false starts nothing.
func TestMQTTAuthStays(t *testing.T) {
	t.Parallel()
	s := load(t, variant{settings: []string{"ENABLE_MQTT_AUTH=false"}}).Services["init"]
	cmd := exec.CommandContext(t.Context(), program(t), "init", "--volumes="+t.TempDir())
	cmd.Env = environment(&s)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(out), "ENABLE_MQTT_AUTH=false")
}

// TestSettingsOfTheGuide: what the security guide names can be set by these names.
func TestSettingsOfTheGuide(t *testing.T) {
	t.Parallel()
	decoder := load(t, variant{settings: []string{"CACHE_TTL=60"}}).Services["decoder"]
	assert.Equal(t, "60", *decoder.Environment["CACHE_TTL"])
	decoder = load(t, variant{}).Services["decoder"]
	assert.Equal(t, "600", *decoder.Environment["CACHE_TTL"])
	assert.Equal(t, "true", *load(t, variant{}).Services["init"].Environment["ENABLE_MQTT_AUTH"])
	for _, name := range []string{"decoder", "writer"} {
		assert.Equal(t, "true", *load(t, variant{}).Services[name].Environment["USE_CONNECTION_POOLING"], name)
		direct := load(t, variant{settings: []string{"USE_CONNECTION_POOLING=false"}}).Services[name]
		assert.Equal(t, "false", *direct.Environment["USE_CONNECTION_POOLING"], name)
		assert.NoError(t, parse(t, &direct, direct.Command), name)
	}
}
