package containers

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/backup"
)

// archive is a backup of a mesh in containers with these files.
func archive(t *testing.T, files map[string]string) *backup.Reader {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "identity")
	require.NoError(t, os.WriteFile(file, []byte(identity.String()+"\n"), 0o600))
	key, err := backup.Recipients([]string{identity.Recipient().String()})
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "archive")
	w, err := backup.Create(path, key)
	require.NoError(t, err)
	for name, text := range files {
		_, err := w.Part(mesh.FilePart+name, 0o600, func(out io.Writer) error { _, err := io.WriteString(out, text); return err })
		require.NoError(t, err)
	}
	signer, err := backup.NewSigner("a secret of tests")
	require.NoError(t, err)
	require.NoError(t, w.Commit(&backup.Manifest{Containers: true}, signer))
	key, err = backup.Identities(file)
	require.NoError(t, err)
	r, err := backup.Open(path, key)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, r.Close()) })
	return r
}

// settingsOf runs the containers as this user.
func settingsOf() string {
	uid := os.Geteuid()
	if uid == 0 {
		uid = ContainerID
	}
	return "F2MESH_UID=" + strconv.Itoa(uid) + "\nF2MESH_GID=" + strconv.Itoa(os.Getegid()) + "\n"
}

func TestSettings(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# mine\n\nF2MESH_UID=10001\n", "CACHE_TTL=60", "COMPOSE_PROFILES=simulator\nVAULT_ADDR=https://vault:8200\n"} {
		assert.True(t, settings.MatchString(text), text)
	}
	for _, text := range []string{"COMPOSE_FILE=oci://example.org/x", "F2MESH_UID=1\nDOCKER_HOST=x\n", "export F2MESH_UID=1", " COMPOSE_FILE: x", "F2MESH_UID=1\rCOMPOSE_FILE=x"} {
		assert.False(t, settings.MatchString(text), text)
	}
	compose, err := os.ReadFile("../../../compose.yaml")
	require.NoError(t, err)
	names := regexp.MustCompile(`\$\{([A-Z0-9_]+)`).FindAllStringSubmatch(string(compose), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		assert.True(t, settings.MatchString(name[1]+"=x"), name[1])
	}
}

// TestRestoreRefusesFiles: nothing that steers Docker, leads out of its folder, or would replace what is there.
func TestRestoreRefusesFiles(t *testing.T) {
	t.Parallel()
	for because, files := range map[string]map[string]string{
		"steer Docker":                {mesh.SettingsFile: settingsOf() + "COMPOSE_FILE=evil.yaml\n"},
		"must not run as root":        {mesh.SettingsFile: "F2MESH_UID=0\n"},
		"which no backup should have": {mesh.SettingsFile: settingsOf(), "secrets/../compose.yaml": "x"},
		`"secrets/one"`:               {mesh.SettingsFile: settingsOf(), "secrets/one": "x"},
		`"nats/passwords.conf"`:       {mesh.SettingsFile: settingsOf(), "nats/passwords.conf": "x"},
		"move secrets/ and .env away": {mesh.SettingsFile: settingsOf(), "secrets/there.txt": "another"},
	} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "secrets"), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "secrets", "there.txt"), []byte("x"), 0o600))
		r := Restore{Reader: archive(t, files), Project: Project{Dir: dir}}
		require.ErrorContains(t, r.sort(), because)
		left, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, left, 1, because)
	}
}

// TestRestoreWritesFiles: what is missing is written, with its mode, and taken away again if the rest fails.
func TestRestoreWritesFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := Restore{Project: Project{Dir: dir}, Reader: archive(t, map[string]string{
		mesh.SettingsFile: settingsOf(), "secrets/one_password.txt": "one", "pki/ca.crt": "ca", "devices/a/device.key": "key",
		"secrets/postgres_superuser_password.txt": `{"username":"postgres_b","password":"p"}` + "\n",
	})}
	require.NoError(t, r.sort())
	assert.ElementsMatch(t, []string{"files/pki/ca.crt", "files/devices/a/device.key"}, r.volumes)
	require.NoError(t, r.write())
	text, err := os.ReadFile(filepath.Join(dir, "secrets", "postgres_superuser_password.txt"))
	require.NoError(t, err)
	assert.Equal(t, "p\n", string(text), "a new server has the first of the two users alone")
	info, err := os.Stat(filepath.Join(dir, "secrets", "one_password.txt"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	again := Restore{Project: r.Project, Reader: r.Reader}
	require.NoError(t, again.sort(), "the same files are not in the way")
	require.NoError(t, again.write())
	require.NoError(t, r.remove())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// TestBeginRestore fills empty volumes with files, refuses others, and begins anew where one was broken off.
func TestBeginRestore(t *testing.T) {
	t.Parallel()
	r := archive(t, map[string]string{"pki/ca.crt": "ca", mesh.RootFolder + "/root.key": "root", "devices/a/device.key": "key"})
	volumes := t.TempDir()
	for _, name := range []string{"trust", "state", mesh.RootFolder, "devices", "nats-data"} {
		require.NoError(t, os.Mkdir(filepath.Join(volumes, name), 0o700))
	}
	c := Init{Volumes: volumes, MQTTAuth: true}
	begin := func(names ...string) error {
		var pipe bytes.Buffer
		require.NoError(t, r.Send(&pipe, names))
		return c.beginRestore(&pipe)
	}
	all := []string{"files/pki/ca.crt", "files/" + mesh.RootFolder + "/root.key", "files/devices/a/device.key"}
	occupied := filepath.Join(volumes, "nats-data", "theirs")
	require.NoError(t, os.WriteFile(occupied, nil, 0o600))
	require.ErrorContains(t, begin(all...), "there is something in the volume nats-data")
	assert.NoFileExists(t, filepath.Join(volumes, "trust", restoringFile))
	require.NoError(t, os.Remove(occupied))
	require.ErrorContains(t, begin(all[1:]...), "no CA")
	require.ErrorIs(t, c.Run(t.Context()), errRestoring, "it was broken off")
	require.ErrorIs(t, (&Provision{CAFile: filepath.Join(volumes, "trust", "ca.crt")}).Run(t.Context(), nil), errRestoring)

	require.NoError(t, os.WriteFile(occupied, nil, 0o600))
	require.NoError(t, begin(all...), "another begins anew")
	assert.NoFileExists(t, occupied)
	for _, path := range []string{"state/pki/ca.crt", mesh.RootFolder + "/root.key", "devices/a/device.key"} {
		assert.FileExists(t, filepath.Join(volumes, path))
	}
	require.NoError(t, c.endRestore())
	require.Error(t, c.endRestore(), "the control: there is none")
}
