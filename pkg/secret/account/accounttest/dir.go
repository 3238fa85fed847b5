// Package accounttest is for tests of servers, which run as other accounts: it
// gives folders that they reach, and says what happens where one is missing.
package accounttest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TempDir is t.TempDir for a test that starts real servers: as root these run
// as accounts of their own, which could not traverse the folder otherwise. Only
// traversal is opened, not listing.
func TempDir(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	require.NoError(tb, os.Chmod(filepath.Dir(dir), 0o711)) //nolint:gosec // traversal is the purpose
	require.NoError(tb, os.Chmod(dir, 0o711))               //nolint:gosec // traversal is the purpose
	return dir
}
