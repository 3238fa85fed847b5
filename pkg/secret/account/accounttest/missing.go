package accounttest

import (
	"os"
	"testing"
)

// SkipMissing ends a test that needs a server which is not installed; cause says
// which. The test is skipped on a laptop, and fails where CI or
// F2MESH_REQUIRE_SERVERS is set.
func SkipMissing(tb testing.TB, cause error) {
	tb.Helper()
	if os.Getenv("CI") != "" || os.Getenv("F2MESH_REQUIRE_SERVERS") != "" {
		tb.Fatal(cause)
	}
	tb.Skip("a server is missing: ", cause)
}

// SkipWithoutTimescale ends a test that needs TimescaleDB where the server does not
// have it. No Debian package has the extension, so the test is skipped even in CI. It
// fails where F2MESH_REQUIRE_TIMESCALE is set, as tools/test-timescale does.
func SkipWithoutTimescale(tb testing.TB) {
	tb.Helper()
	const why = "PostgreSQL has no TimescaleDB here: run ./task test:timescale on a server that has it"
	if os.Getenv("F2MESH_REQUIRE_TIMESCALE") != "" {
		tb.Fatal(why)
	}
	tb.Skip(why)
}
