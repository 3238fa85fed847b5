package postgres

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSyncsWhole(t *testing.T) {
	t.Parallel()
	for kernel, want := range map[string]bool{
		"6.1.0-28-amd64": true, "5.8.0": true, "5.10.1": true, "5.7.19": false, "4.18.0-553.el8": false, "": false, "unknown": false,
	} {
		assert.Equal(t, want, syncsWhole(15, kernel), kernel)
		assert.False(t, syncsWhole(13, kernel), "version 13 does not know the setting")
	}
}

// A server that was killed syncs its data at once and not file by file.
func TestRecoverySyncsAtOnce(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t)
	c := startCluster(t, cfg)
	programs, err := find(t.Context(), "")
	require.NoError(t, err)
	if !syncsWhole(version(t.Context(), programs), kernel()) {
		t.Skip("needs PostgreSQL 14 and Linux 5.8")
	}
	assert.Equal(t, "syncfs", show(t, connect(t, c, cfg), "recovery_init_sync_method"))
}
