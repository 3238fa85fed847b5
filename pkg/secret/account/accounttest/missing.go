package accounttest

import (
	"os"
	"testing"
)

// SkipMissing ends a test that needs a server which is not installed, as cause
// says: it is skipped on a laptop, and fails where CI or F2MESH_REQUIRE_SERVERS
// is set.
func SkipMissing(tb testing.TB, cause error) {
	tb.Helper()
	if os.Getenv("CI") != "" || os.Getenv("F2MESH_REQUIRE_SERVERS") != "" {
		tb.Fatal(cause)
	}
	tb.Skip("SKIPPED, a server is missing: ", cause)
}
