package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

// composeFolder is a folder of compose.yaml, with a docker that only notes what it is
// told, and runs `f2mesh volumes` on folders. tools/compose has a backup of a mesh.
type composeFolder struct {
	dir, bin, volumes string
}

const dockerScript = `#!/bin/sh
echo "$*" >>%[1]s/asked
case "$*" in
*' ps --services --status running'*) cat %[1]s/running ;;
*' stop') : >%[1]s/running ;;
*' run --rm --no-deps --no-TTY backup '*)
	shift 8
	[ ! -e %[1]s/endless ] || { echo >%[1]s/endless; exec sleep 600; }
	[ ! -e %[1]s/started ] || echo writer >%[1]s/running
	[ ! -e %[1]s/short ] || { F2MESH_TEST_RUN=1 %[2]s volumes "$@" --volumes=%[3]s | head -c 100; exit 0; }
	[ ! -e %[1]s/broken ] || { echo "the first bytes"; exit 1; }
	F2MESH_TEST_RUN=1 exec %[2]s volumes "$@" --volumes=%[3]s ;;
esac
`

func newComposeFolder(t *testing.T) *composeFolder {
	t.Helper()
	f := &composeFolder{dir: t.TempDir(), bin: t.TempDir(), volumes: t.TempDir()}
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(f.bin, "docker"), fmt.Appendf(nil, dockerScript, f.bin, self, f.volumes), 0o700))
	f.write(t, filepath.Join(f.bin, "running"), "writer\nnats\n")
	for _, name := range []string{"program", "mosquitto-run", "state", "nats-data", "postgres-data"} {
		require.NoError(t, os.Mkdir(filepath.Join(f.volumes, name), 0o700))
	}
	return f
}

// fill gives it a mesh.
func (f *composeFolder) fill(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Join(f.dir, "secrets"), 0o700))
	for _, name := range containers.ContainerSecrets() {
		f.write(t, filepath.Join(f.dir, "secrets", name+containers.SecretSuffix), "secret")
	}
	f.write(t, filepath.Join(f.dir, ".env"), fmt.Sprintf("F2MESH_UID=%d\nF2MESH_GID=%d\n", cmp.Or(os.Geteuid(), containers.ContainerID), os.Getegid()))
	f.write(t, filepath.Join(f.volumes, "state", "key"), "key")
	f.write(t, filepath.Join(f.volumes, "program", "f2mesh"), "not in a backup")
}

func (*composeFolder) write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func (f *composeFolder) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := f.command(t, args...).CombinedOutput()
	return string(out), err
}

func (f *composeFolder) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1", "PATH="+f.bin+":"+os.Getenv("PATH"))
	return cmd
}

// asked are docker's commands since the last time.
func (f *composeFolder) asked(t *testing.T) string {
	t.Helper()
	path := filepath.Join(f.bin, "asked")
	text, _ := os.ReadFile(path)
	_ = os.Remove(path)
	return strings.ReplaceAll(string(text), "compose --profile * ", "")
}

func TestBackupOfContainers(t *testing.T) {
	t.Parallel()
	recipient, identity := agePair(t)
	file := filepath.Join(t.TempDir(), "mesh.age")
	from := newComposeFolder(t)
	from.fill(t)
	save := []string{"backup", "--compose", from.dir, "--to", file, "--recipient", recipient}

	out, err := from.run(t, append(save, "--dry-run")...)
	require.NoError(t, err, out)
	assert.NotContains(t, from.asked(t), "stop\n")
	assert.NoFileExists(t, file)

	breaksOff(t, from, save, file)
	out, err = from.run(t, save...)
	require.NoError(t, err, out)
	assert.Equal(t, `ps --services --status running --status restarting
build --quiet init
stop
ps --services --status running
run --rm --no-deps --no-TTY backup save
ps --services --status running
start writer nats
`, from.asked(t))
	_, err = from.run(t, save...)
	require.Error(t, err, "it is there already")
	assert.Empty(t, from.asked(t))

	to := newComposeFolder(t)
	refusesBackup(t, to, file, identity)
	out, err = to.run(t, "restore", "--compose", to.dir, "--from", file, "--identity", identity)
	require.Error(t, err)
	require.Contains(t, out, "anybody who has the public key")
	text, err := os.ReadFile(filepath.Join(from.dir, "secrets", mesh.SigningSecret+containers.SecretSuffix))
	require.NoError(t, err)
	signer, err := backup.NewSigner(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	out, err = to.run(t, "restore", "--compose", to.dir, "--from", file, "--identity", identity, "--signer", signer.Public())
	require.NoError(t, err, out)
	for _, name := range []string{"secrets/mqtt_password.txt", ".env"} {
		want, err := os.ReadFile(filepath.Join(from.dir, name))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(to.dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	assert.FileExists(t, filepath.Join(to.volumes, "state", "key"))
	assert.NoFileExists(t, filepath.Join(to.volumes, "program", "f2mesh"))
}

// breaksOff: what is not complete is not there, and the mesh goes on.
func breaksOff(t *testing.T, f *composeFolder, save []string, file string) {
	t.Helper()
	pipe := filepath.Join(f.volumes, "state", "pipe")
	pid := filepath.Join(f.volumes, "postgres-data", "pgdata", "postmaster.pid")
	require.NoError(t, os.Mkdir(filepath.Dir(pid), 0o700))
	for name, spoil := range map[string]string{
		"the container ends early": filepath.Join(f.bin, "broken"), "a volume cannot be read": pipe, "a server runs": pid,
		"the stream is cut, and nobody says so": filepath.Join(f.bin, "short"), "somebody starts the writer meanwhile": filepath.Join(f.bin, "started"),
		"a restore into it was killed": filepath.Join(f.volumes, "nats-data", ".incomplete"),
	} {
		f.write(t, filepath.Join(f.bin, "running"), "writer\nnats\n")
		if spoil == pipe {
			require.NoError(t, syscall.Mkfifo(pipe, 0o600))
		} else {
			f.write(t, spoil, "")
		}
		out, err := f.run(t, save...)
		require.Error(t, err, name)
		t.Log(out)
		assert.True(t, strings.HasSuffix(f.asked(t), "start writer nats\n"), name)
		require.NoError(t, os.Remove(spoil))
		entries, err := os.ReadDir(filepath.Dir(file))
		require.NoError(t, err)
		assert.Empty(t, entries, name)
	}
	require.NoError(t, os.Remove(filepath.Dir(pid)))
	f.write(t, filepath.Join(f.bin, "running"), "writer\nnats\n")
}

// A backup that somebody breaks off lets the mesh go on, too, and one whose terminal
// is lost.
func TestBackupOfContainersIsInterrupted(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) { interruptBackup(t, s) })
	}
}

func interruptBackup(t *testing.T, by syscall.Signal) {
	t.Helper()
	recipient, _ := agePair(t)
	f := newComposeFolder(t)
	f.fill(t)
	endless, to := filepath.Join(f.bin, "endless"), t.TempDir()
	require.NoError(t, syscall.Mkfifo(endless, 0o600))
	done := make(chan error)
	cmd := f.command(t, "backup", "--compose", f.dir, "--to", filepath.Join(to, "mesh.age"), "--recipient", recipient)
	require.NoError(t, cmd.Start())
	go func() { done <- cmd.Wait() }()
	_, err := os.ReadFile(endless) // it saves
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Signal(by))
	require.Error(t, <-done)
	assert.True(t, strings.HasSuffix(f.asked(t), "backup save\nstart writer nats\n"))
	entries, err := os.ReadDir(to)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

// refusesBackup: nothing is written where something is wrong.
func refusesBackup(t *testing.T, to *composeFolder, file, identity string) {
	t.Helper()
	load := func(args ...string) (string, error) {
		return to.run(t, append([]string{"restore", "--from", file, "--identity", identity, "--trusted"}, args...)...)
	}
	untouched := func(name string) {
		entries, err := os.ReadDir(to.dir)
		require.NoError(t, err)
		assert.Empty(t, entries, name)
	}
	out, err := load("--compose", to.dir, "--dry-run")
	require.NoError(t, err, out)
	untouched("--dry-run")
	out, err = load("--state-dir", filepath.Join(t.TempDir(), "state"))
	require.Error(t, err)
	assert.Contains(t, out, "--compose")

	to.write(t, filepath.Join(to.bin, "broken"), "")
	_, err = load("--compose", to.dir)
	require.Error(t, err)
	untouched("it breaks off")
	require.NoError(t, os.Remove(filepath.Join(to.bin, "broken")))

	occupied := filepath.Join(to.volumes, "nats-data", "theirs")
	to.write(t, occupied, "")
	out, err = load("--compose", to.dir)
	require.Error(t, err)
	assert.Contains(t, out, "nats-data")
	untouched("a volume is not empty")
	require.NoError(t, os.Remove(occupied))

	to.write(t, filepath.Join(to.dir, ".env"), "F2MESH_UID=4\n")
	out, err = load("--compose", to.dir)
	require.Error(t, err)
	assert.Contains(t, out, "move secrets/ and .env away")
	require.NoError(t, os.Remove(filepath.Join(to.dir, ".env")))
}

// No mesh starts on volumes that a restore was to fill when it was killed.
func TestInitRefusesHalfOfAMesh(t *testing.T) {
	t.Parallel()
	f := newComposeFolder(t)
	f.write(t, filepath.Join(f.volumes, "nats-data", ".incomplete"), "")
	c := containers.Init{Volumes: f.volumes, MQTTAuth: true}
	require.ErrorContains(t, c.Run(t.Context()), "broke off")
	require.NoError(t, os.Remove(filepath.Join(f.volumes, "nats-data", ".incomplete")))
	require.NoError(t, (&VolumesFolder{f.volumes}).Complete(), "the control")
}

// No backup without a secret looks like one with all.
func TestBackupOfContainersTakesAllSecrets(t *testing.T) {
	t.Parallel()
	recipient, _ := agePair(t)
	f := newComposeFolder(t)
	f.fill(t)
	require.NoError(t, os.Remove(filepath.Join(f.dir, "secrets", "timescale_password.txt")))
	out, err := f.run(t, "backup", "--compose", f.dir, "--to", filepath.Join(t.TempDir(), "mesh.age"), "--recipient", recipient)
	require.Error(t, err)
	assert.Contains(t, out, "timescale_password.txt")
	assert.NotContains(t, f.asked(t), "stop\n")
}

// What a backup's .env may say is what compose.yaml asks for.
func TestSettingsOfABackup(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# mine\n\nF2MESH_UID=10001\n", "CACHE_TTL=60", "COMPOSE_PROFILES=simulator\nVAULT_ADDR=https://vault:8200\n"} {
		assert.True(t, settings.MatchString(text), text)
	}
	for _, text := range []string{"COMPOSE_FILE=oci://example.org/x", "F2MESH_UID=1\nDOCKER_HOST=x\n", "export F2MESH_UID=1", " COMPOSE_FILE: x", "F2MESH_UID=1\rCOMPOSE_FILE=x"} {
		assert.False(t, settings.MatchString(text), text)
	}
	compose, err := os.ReadFile("../../compose.yaml")
	require.NoError(t, err)
	names := regexp.MustCompile(`\$\{([A-Z0-9_]+)`).FindAllStringSubmatch(string(compose), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		assert.True(t, settings.MatchString(name[1]+"=x"), name[1])
	}
	refuses := func(text, because string) {
		f := newComposeFolder(t)
		f.fill(t)
		f.write(t, filepath.Join(f.dir, ".env"), text)
		recipient, identity := agePair(t)
		file := filepath.Join(t.TempDir(), "mesh.age")
		out, err := f.run(t, "backup", "--compose", f.dir, "--to", file, "--recipient", recipient)
		require.NoError(t, err, out)
		to := newComposeFolder(t)
		out, err = to.run(t, "restore", "--compose", to.dir, "--from", file, "--identity", identity, "--trusted")
		require.Error(t, err)
		assert.Contains(t, out, because)
		assert.NotContains(t, to.asked(t), "build")
	}
	refuses("COMPOSE_FILE=evil.yaml\n", "steer Docker")
	refuses("F2MESH_UID=0\n", "must not run as root")
}
