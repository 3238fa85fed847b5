package compose

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dockerfile parses the Dockerfile as BuildKit does.
func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	parsed, err := parser.Parse(strings.NewReader(readFile(t, "Dockerfile")))
	require.NoError(t, err)
	require.Empty(t, parsed.Warnings)
	stages, _, err := instructions.Parse(parsed.AST, nil)
	require.NoError(t, err)
	require.Len(t, stages, 2)
	return stages
}

// find lists the instructions of one kind.
func find[T instructions.Command](stage instructions.Stage) (all []T) {
	for _, c := range stage.Commands {
		if typed, ok := c.(T); ok {
			all = append(all, typed)
		}
	}
	return all
}

func TestImage(t *testing.T) {
	t.Parallel()
	stages := dockerfile(t)
	build, final := stages[0], stages[1]
	assert.Regexp(t, `^golang:[0-9]+\.[0-9]+\.[0-9]+-bookworm$`, build.BaseName)
	assert.Equal(t, "scratch", final.BaseName, "no shell, no package manager")
	assert.Empty(t, find[*instructions.RunCommand](final))
	users := find[*instructions.UserCommand](final)
	require.Len(t, users, 1)
	assert.Equal(t, "iotuser:iotuser", users[0].User)
	assert.IsType(t, &instructions.HealthCheckCommand{}, final.Commands[len(final.Commands)-1], "behind it nothing changes the user")
	checks := find[*instructions.HealthCheckCommand](final)
	require.Len(t, checks, 1)
	assert.Equal(t, []string{"CMD", "/usr/local/bin/f2mesh", "healthcheck"}, checks[0].Health.Test)
	entry := find[*instructions.EntrypointCommand](final)
	require.Len(t, entry, 1)
	assert.False(t, entry[0].PrependShell)
	assert.Equal(t, []string{"/usr/local/bin/f2mesh"}, entry[0].CmdLine)
	for _, c := range find[*instructions.CopyCommand](final) {
		assert.Equal(t, "build", c.From, "everything comes from the build")
	}
}

// TestVersions: what exists twice has one version.
func TestVersions(t *testing.T) {
	t.Parallel()
	module := func(file, path string) string {
		found := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(path) + ` v?(\S+)`).FindStringSubmatch(readFile(t, file))
		require.NotNil(t, found, path)
		return found[1]
	}
	project := load(t, everything)
	assert.Equal(t, "nats:"+module("go.mod", "github.com/nats-io/nats-server/v2")+"-alpine", project.Services["nats"].Image)
	assert.Equal(t, "hashicorp/vault:"+module("tools/vault/go.mod", "github.com/hashicorp/vault"), project.Services["vault"].Image)
	goVersion := strings.TrimSuffix(strings.TrimPrefix(dockerfile(t)[0].BaseName, "golang:"), "-bookworm")
	needed := regexp.MustCompile(`(?m)^go (\S+)`).FindStringSubmatch(readFile(t, "go.mod"))[1]
	assert.Equal(t, needed[:strings.LastIndex(needed, ".")], goVersion[:strings.LastIndex(goVersion, ".")])
}

// TestVolumesAreInitsFirst: the image has a folder for every volume, init mounts
// each, and so each has the right owner.
func TestVolumesAreInitsFirst(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	all := slices.Sorted(maps.Keys(project.Volumes))
	var mounted []string
	for _, v := range project.Services["init"].Volumes {
		assert.Equal(t, "/volumes/"+v.Source, v.Target)
		mounted = append(mounted, v.Source)
	}
	slices.Sort(mounted)
	assert.Equal(t, all, mounted)
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			allowed := name == "init" || name == "operator" && v.ReadOnly
			assert.False(t, v.Source == "root-key" && !allowed, "%s has the root's key", name)
		}
	}
	var made []string
	for _, a := range find[*instructions.ArgCommand](dockerfile(t)[0]) {
		if a.Args[0].Key == "VOLUMES" {
			made = strings.Fields(strings.Trim(a.Args[0].ValueString(), `"`))
		}
	}
	slices.Sort(made)
	assert.Equal(t, all, made)
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			made := name == "operator" // by setup
			if v.Type == "bind" && !made {
				assert.DirExists(t, v.Source, "%s mounts it, and the engine does not make it", name)
			}
		}
	}
}

// TestBuild runs the build stage on the files that .dockerignore lets through:
// twice, in different folders.
func TestBuild(t *testing.T) {
	t.Parallel()
	first, second := buildImage(t), buildImage(t)
	a, err := os.ReadFile(filepath.Join(first, "rootfs/usr/local/bin/f2mesh"))
	require.NoError(t, err)
	b, err := os.ReadFile(filepath.Join(second, "rootfs/usr/local/bin/f2mesh"))
	require.NoError(t, err)
	assert.True(t, bytes.Equal(a, b), "the same source gives the same program")

	out, err := exec.CommandContext(t.Context(), filepath.Join(first, "rootfs/usr/local/bin/f2mesh"), "version").Output()
	require.NoError(t, err)
	assert.Equal(t, "f2mesh v9.8.7\n", string(out))

	file, err := elf.NewFile(bytes.NewReader(a))
	require.NoError(t, err)
	libraries, err := file.ImportedLibraries()
	require.NoError(t, err)
	assert.Empty(t, libraries)
	for _, p := range file.Progs {
		assert.NotEqual(t, elf.PT_INTERP, p.Type, "it needs no loader: there is none")
	}

	var bom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	data, err := os.ReadFile(filepath.Join(first, "rootfs/usr/share/doc/f2mesh/sbom.cdx.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &bom))
	assert.Equal(t, "CycloneDX", bom.BOMFormat)
	assert.Equal(t, "v9.8.7", bom.Metadata.Component.Version)
	var components []string
	for _, c := range bom.Components {
		components = append(components, c.Name)
	}
	assert.Subset(t, components, []string{"std", "github.com/nats-io/nats.go", "github.com/jackc/pgx/v5", "github.com/eclipse/paho.mqtt.golang"})

	passwd, err := os.ReadFile(filepath.Join(first, "rootfs/etc/passwd"))
	require.NoError(t, err)
	assert.Equal(t, "iotuser:x:10001:10001:f2mesh:/nonexistent:/sbin/nologin\n", string(passwd))
	info, err := os.Stat(filepath.Join(first, "volumes/nats-data"))
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o700, info.Mode())
}

// buildImage runs what the Dockerfile runs, with /out in a folder of the test, which
// it answers.
func buildImage(t *testing.T) string {
	t.Helper()
	source, out := t.TempDir(), t.TempDir()
	copyContext(t, source)
	for _, run := range find[*instructions.RunCommand](dockerfile(t)[0]) {
		line := strings.ReplaceAll(strings.Join(run.CmdLine, " "), "/out/", out+"/")
		cmd := exec.CommandContext(t.Context(), "sh", "-ec", line)
		cmd.Dir = source
		cmd.Env = append(os.Environ(),
			"CGO_ENABLED=0", "GOFLAGS=-mod=readonly -pgo=off", "GOTOOLCHAIN=local", "GOWORK=off", // -pgo=off: it takes minutes
			"VERSION=v9.8.7", "TARGETOS=linux", "TARGETARCH="+goArch(t), "GID=10001", "VOLUMES=nats-data trust")
		cmd.Args[2] = strings.ReplaceAll(cmd.Args[2], "$UID", "10001") // a shell may have it read-only
		text, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", line, text)
	}
	return out
}

func goArch(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOARCH").Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// ignored tells what .dockerignore keeps away.
func ignored(t *testing.T) *patternmatcher.PatternMatcher {
	t.Helper()
	patterns, err := ignorefile.ReadAll(strings.NewReader(readFile(t, ".dockerignore")))
	require.NoError(t, err)
	matcher, err := patternmatcher.New(patterns)
	require.NoError(t, err)
	return matcher
}

func copyContext(t *testing.T, to string) {
	t.Helper()
	from, matcher := root(t), ignored(t)
	require.NoError(t, filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".f2mesh", "bin", ".task", "secrets"}, name) {
				return filepath.SkipDir
			}
			return nil
		}
		if skip, err := matcher.MatchesOrParentMatches(filepath.ToSlash(name)); skip || err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	}))
}

// TestContext: no secret, certificate or state of a clone reaches a build.
func TestContext(t *testing.T) {
	t.Parallel()
	matcher := ignored(t)
	for name, want := range map[string]bool{
		"secrets/mqtt_password.txt": true, ".env": true, ".git/config": true, ".f2mesh/pki/root.key": true, "bin/f2mesh": true,
		"certs/ca.key": true, "mosquitto/server.key": true, "mosquitto/passwords": true, "nats/passwords.conf": true,
		"cmd/.env": true, "cmd/f2mesh/x.pem": true, "pkg/secrets/x": true, "compose.yaml": true, "notes.txt": true,
		"go.mod": false, "cmd/f2mesh/main.go": false, "cmd/f2mesh/default.pgo": false, "nats/nats-server.conf": false,
		"mosquitto/mosquitto.conf": false, "LICENSE": false, "pkg/database/fleet/schema.sql": false,
	} {
		got, err := matcher.MatchesOrParentMatches(name)
		require.NoError(t, err)
		assert.Equal(t, want, got, name)
	}
}
