package compose

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// known is who is given which secret, and nobody else is.
var known = map[string][]string{
	"init": {
		"mqtt_operator_password", "mqtt_password", "mqtt_registrar_password", "nats_alarm_password", "nats_bridge_password", "nats_console_password",
		"nats_decoder_password", "nats_health_password", "nats_keeper_password", "nats_operator_password", "nats_registrar_password", "nats_sys_password", "nats_writer_password",
		"pgbouncer_password", "postgres_reader_password", "postgres_superuser_password", "timescale_superuser_password",
	},
	"provision": {"nats_operator_password", "pgbouncer_password", "postgres_password", "postgres_reader_password", "postgres_superuser_password", "registry_password", "timescale_password", "timescale_superuser_password"},
	"demo":      {"mqtt_registrar_password", "postgres_superuser_password", "registry_password"},
	"mosquitto": {"mqtt_password"}, "postgres": {"postgres_superuser_password"}, "timescaledb": {"timescale_superuser_password"},
	"pgbouncer":  {"pgbouncer_password"},
	"bridge":     {"metrics_password", "mqtt_password", "mqtt_username", "nats_bridge_password"},
	"decoder":    {"metrics_password", "nats_decoder_password", "postgres_password"},
	"writer":     {"metrics_password", "nats_writer_password", "timescale_password"},
	"keeper":     {"metrics_password", "nats_keeper_password"},
	"registrar":  {"metrics_password", "mqtt_registrar_password", "nats_registrar_password", "registry_password"},
	"health":     {"health_password", "metrics_password", "nats_console_password", "nats_health_password", "postgres_reader_password"},
	"alarm":      {"metrics_password", "nats_alarm_password"},
	"prometheus": {"metrics_password"},
	"grafana":    {"grafana_admin_password"},
	"vault-bootstrap": {
		"health_password", "mqtt_password", "mqtt_registrar_password", "mqtt_username", "nats_alarm_password", "nats_bridge_password", "nats_console_password", "nats_decoder_password",
		"nats_health_password", "nats_keeper_password", "nats_registrar_password", "nats_writer_password", "postgres_password", "postgres_reader_password", "registry_password", "timescale_password",
	},
}

func secretsOf(s *types.ServiceConfig) (all []string) {
	for _, secret := range s.Secrets {
		all = append(all, secret.Source)
	}
	slices.Sort(all)
	return all
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	for name, s := range project.Services {
		assert.Equal(t, known[name], secretsOf(&s), name)
		for _, secret := range s.Secrets {
			assert.Contains(t, []string{"", "/run/secrets/" + secret.Source, secret.Source}, secret.Target, "%s: the program looks in /run/secrets", name)
		}
		assert.Empty(t, s.Configs, name)
		assert.Empty(t, s.EnvFiles, name)
	}
	for name, secret := range project.Secrets {
		assert.Equal(t, filepath.Join(root(t), "secrets", name+".txt"), secret.File, "a file, not a variable or a text")
		assert.Empty(t, secret.Environment+secret.Content, name)
	}
}

// clients are the services that look for secrets in Vault.
var clients = []string{"alarm", "bridge", "decoder", "health", "keeper", "registrar", "writer"}

// TestVaultLogins: a service has its own login to Vault and no other's; whoever writes
// them is started by a person, and stores what the services ask for: not the password of
// Prometheus, with which they log in nowhere.
func TestVaultLogins(t *testing.T) {
	t.Parallel()
	project := load(t, everything)
	var stored []string
	for name, s := range project.Services {
		for _, v := range s.Volumes {
			service, ok := strings.CutSuffix(v.Source, "-vault")
			switch {
			case !ok || name == "init":
			case name == "vault-bootstrap":
				assert.Equal(t, "/var/lib/f2mesh/vault/"+service, v.Target)
				assert.Contains(t, append([]string{"operator"}, clients...), service)
			default:
				assert.Equal(t, service, name, "a login of another")
				assert.Equal(t, *s.Environment["F2MESH_VAULT_AUTH_DIR"], v.Target)
				stored = append(stored, slices.DeleteFunc(secretsOf(&s), func(name string) bool { return name == "metrics_password" })...)
			}
		}
	}
	slices.Sort(stored)
	assert.Equal(t, stored, known["vault-bootstrap"])
}

// TestSetup: setup makes the files that compose.yaml names, with the modes that the
// guide asks for, and the settings that go with them.
func TestSetup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), program(t), "setup", "--compose="+dir).CombinedOutput()
	require.NoError(t, err, string(out))
	entries, err := os.ReadDir(filepath.Join(dir, "secrets"))
	require.NoError(t, err)
	var made []string
	values := map[string]string{}
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), info.Mode(), e.Name())
		name := strings.TrimSuffix(e.Name(), ".txt")
		made = append(made, name)
		data, err := os.ReadFile(filepath.Join(dir, "secrets", e.Name()))
		require.NoError(t, err)
		if name != "mqtt_username" {
			assert.GreaterOrEqual(t, len(strings.TrimSpace(string(data))), 32, "24 bytes in base64")
		}
		values[string(data)] = name
		assert.NotContains(t, string(out), strings.TrimSpace(string(data)), "setup shows no secret")
	}
	assert.Len(t, values, len(made), "each is another")
	info, err := os.Stat(filepath.Join(dir, "secrets"))
	require.NoError(t, err)
	assert.Equal(t, os.ModeDir|0o700, info.Mode())
	assert.Equal(t, slices.Sorted(maps.Keys(load(t, everything).Secrets)), made, "what compose.yaml has and what setup makes")

	settings, err := os.ReadFile(filepath.Join(dir, ".env"))
	require.NoError(t, err)
	var pairs []string
	for line := range strings.Lines(string(settings)) {
		pairs = append(pairs, strings.TrimSpace(line))
	}
	project := load(t, variant{settings: append(pairs, "F2MESH_VERSION=v1.2.3"), profiles: []string{"*"}})
	for name, s := range project.Services {
		assert.Empty(t, broken(&s), "%s, with what setup has written", name)
	}
	assert.Equal(t, "f2mesh:v1.2.3", project.Services["bridge"].Image)

	before := values
	require.NoError(t, exec.CommandContext(t.Context(), program(t), "setup", "--compose="+dir).Run())
	for value, name := range before {
		data, err := os.ReadFile(filepath.Join(dir, "secrets", name+".txt"))
		require.NoError(t, err)
		assert.Equal(t, value, string(data), "setup changes nothing that is there")
	}
}
