package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/vault/vaulttest"
)

// TestSoakWithoutVault has a soak rotate a password in Vault, seal Vault, and kill the service that uses the password.
// The negative control, whose services take no secret from files, must stand still meanwhile.
func TestSoakWithoutVault(t *testing.T) {
	t.Parallel()
	program, err := os.Executable()
	require.NoError(t, err)
	dir := accounttest.TempDir(t)
	file := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(t.Context(), program, "soak", "--vault="+vaulttest.Program(t), "--dir="+dir, "--report="+file, "--controls=vault-only",
		"--kinds=rotate,vault-sealed,kill-vault", "--faults=3", "--seed=379", "--messages=1000", "--rate=300", "--controllers=3")
	cmd.Env = append(os.Environ(), "F2MESH_TEST_RUN=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	assert.Contains(t, string(out), "control vault-only: caught: vault-sealed writer")

	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var report struct {
		Run struct {
			Faults []struct{ Kind, Target string }
		}
	}
	require.NoError(t, json.Unmarshal(text, &report))
	require.Len(t, report.Run.Faults, 3)
	kinds := []string{}
	for _, f := range report.Run.Faults {
		kinds = append(kinds, f.Kind+" "+f.Target)
	}
	assert.Equal(t, []string{"rotate timescale_password", "vault-sealed writer", "kill-vault "}, kinds, "choose a seed that has this order")
}
