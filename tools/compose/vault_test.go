package compose

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secretsFromVault is what the README says of Vault: open it, fill it, name it.
func (e *engine) secretsFromVault(t *testing.T) {
	t.Helper()
	if standin("vault") == "" {
		return // TestMesh has said so
	}
	token := e.openVault(t)
	e.startWith("vault-bootstrap", token+"\n")
	assert.Contains(t, e.running["vault-bootstrap"].log.String(), "timescale_password")
	for _, name := range clients {
		assert.Equal(t, []string{name + ".role_id", name + ".secret_id"}, entries(t, e.volume(name+"-vault")), "its own login alone")
		assert.NotContains(t, e.provenance(t, name), `source="vault"`, "the control: VAULT_ADDR is not set yet")
	}
	assert.Equal(t, []string{"operator.role_id", "operator.secret_id"}, entries(t, e.volume("operator-vault")))
	e.project.Services["operator"].Environment["VAULT_ADDR"] = new("https://vault:8200")
	for _, name := range []string{"init", "provision", "health", "alarm", "bridge", "decoder", "writer", "keeper", "registrar"} {
		if _, runs := e.running[name]; runs && !e.running[name].ended() {
			require.True(t, e.stop(name), name)
		}
		e.project.Services[name].Environment["VAULT_ADDR"] = new("https://vault:8200")
		e.start(name)
	}
	for _, name := range clients {
		seen := e.provenance(t, name)
		assert.Contains(t, seen, `source="vault"`, name)
		assert.NotContains(t, seen, `source="file"`, name)
		assert.NotContains(t, seen, "f2mesh_secret_downgraded{secret=\"nats_"+name+"_password\"} 1", name)
	}
	e.readings()
	e.rotatesInVault(t, "timescale_password")
	e.startWith("vault-bootstrap", token)
	assert.Contains(t, e.running["vault-bootstrap"].log.String(), "Nothing to change", "a second time")
	for name, s := range e.running {
		assert.NotContains(t, s.log.String(), token, "the token in the log of %s", name)
	}
}

// openVault is `vault operator init` and `vault operator unseal`; it answers the root
// token.
func (e *engine) openVault(t *testing.T) string {
	t.Helper()
	var made struct {
		Keys  []string `json:"unseal_keys_b64"`
		Token string   `json:"root_token"`
	}
	require.NoError(t, json.Unmarshal(e.vault(t, "operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"), &made))
	require.Len(t, made.Keys, 1)
	e.vault(t, "operator", "unseal", made.Keys[0])
	return made.Token
}

// vault is the CLI in Vault's container.
func (e *engine) vault(t *testing.T, args ...string) []byte {
	t.Helper()
	s := e.running["vault"]
	out, err := s.inside(s.cmd.Process.Pid, nil, append([]string{"/bin/vault"}, args...)...)
	require.NoError(t, err, string(out))
	return out
}

// rotatesInVault: where Vault has a secret, a rotation puts the new one there, and the file follows: it counts while
// Vault is sealed.
func (e *engine) rotatesInVault(t *testing.T, name string) {
	t.Helper()
	file := e.secretFile(t, name)
	out, err := e.operator("secret", "rotate", name)
	require.NoError(t, err, out)
	assert.Contains(t, out, "version 1 -> 2 (vault)")
	now := e.secretFile(t, name)
	assert.Equal(t, file.inode, now.inode)
	server := "host=localhost port=6432 dbname=telemetry sslrootcert=/etc/pgbouncer/ca.crt user="
	_, err = e.psqlBy("pgbouncer", file.password, server+file.name("f2mesh_writer"), "SELECT 1")
	require.Error(t, err, "the old one")
	_, err = e.psqlBy("pgbouncer", now.password, server+now.name("f2mesh_writer"), "SELECT 1")
	require.NoError(t, err, "the new one")
	e.readings()
	assert.Contains(t, e.provenance(t, "writer"), `secret="timescale_password",source="vault",version="2"`)
}

// provenance is what a service says of its secrets.
func (e *engine) provenance(t *testing.T, name string) string {
	t.Helper()
	s := e.running["registrar"] // its image has more than one program
	out, err := s.inside(s.cmd.Process.Pid, nil, "/bin/bash", "-c",
		`exec 3<>"/dev/tcp/$0/9100" && printf 'GET /metrics HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n' "$(cat /run/secrets/metrics_password)" >&3 && cat <&3`, name)
	require.NoError(t, err, string(out))
	var lines strings.Builder
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "f2mesh_secret_") {
			lines.WriteString(line)
		}
	}
	require.NotEmpty(t, lines.String(), string(out))
	return lines.String()
}

func entries(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, f := range found {
		names = append(names, f.Name())
	}
	return names
}
