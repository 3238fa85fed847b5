package compose

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unseen are the checks of `f2mesh doctor` that cannot look into containers from
// this machine, and those that a test has no engine or no network for.
var unseen = []string{
	"container-hardening", "database-failed-logins", "database-password", "database-ports", "database-privileges", "database-tls",
	"input-injection", "loss-broker-queue", "loss-postgres-sync", "loss-stream-limits", "network-listeners", "process-users",
	"program-vulnerabilities", "secret-logs", "tls-revocation", "tls-root-key",
	"vault-audit", "vault-secret-ids",
}

// exposed are those of them that only want for compose.ports.yaml.
var exposed = []string{"database-password", "database-privileges", "database-tls", "input-injection", "loss-postgres-sync"}

// securityCheck is `f2mesh doctor --compose` beside the containers.
func (e *engine) securityCheck(t *testing.T) {
	t.Helper()
	e.publish(load(t, variant{files: []string{"compose.ports.yaml"}, profiles: []string{"*"}}))
	assert.Equal(t, unseen, e.unseen(t))
	assert.Equal(t, slices.DeleteFunc(slices.Clone(unseen), func(name string) bool {
		return slices.Contains(exposed, name)
	}), e.unseen(t, "--database-ports"), "EXPOSE_DATABASE_PORTS")

	secret := filepath.Join(e.dir, "secrets", "nats_console_password.txt")
	require.NoError(t, os.Chmod(secret, 0o644))
	assert.Equal(t, "FAILED", e.doctor(t, "--only=secret-modes")["secret-modes"], "the control")
	require.NoError(t, os.Chmod(secret, 0o600))
	require.NoError(t, e.running["pgbouncer"].cmd.Process.Kill())
	assert.Equal(t, "FAILED", e.doctor(t, "--only=tls-versions")["tls-versions"], "the control: the pooler is one of the servers")
	<-e.running["pgbouncer"].done
	e.start("pgbouncer")
}

// unseen are the checks that could not be made; all others are to be ok.
func (e *engine) unseen(t *testing.T, args ...string) (names []string) {
	t.Helper()
	for name, state := range e.doctor(t, args...) {
		if state == "SKIPPED" {
			names = append(names, name)
			continue
		}
		if name == "loss-broker-version" { // Mosquitto 2.0 is what this machine may have
			assert.Contains(t, []string{"ok", "WARNING"}, state, name)
			continue
		}
		assert.Equal(t, "ok", state, name)
	}
	slices.Sort(names)
	return names
}

// doctor answers the state of each check.
func (e *engine) doctor(t *testing.T, args ...string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), append([]string{
		"doctor", "--json", "--compose=" + e.dir, "--ca=" + filepath.Join(e.volume("trust"), "ca.crt"), "--devices=" + e.volume("devices"), "--docker=/nonexistent",
	}, args...)...)
	out, err := cmd.Output()
	var results []struct{ Name, State, Seen string }
	require.NoError(t, json.Unmarshal(out, &results), "%v: %s", err, out)
	states := map[string]string{}
	for _, r := range results {
		t.Logf("%-24s %-12s %s", r.Name, r.State, r.Seen)
		states[r.Name] = r.State
	}
	return states
}
