package postgres

import (
	"fmt"
	"os"
)

// After a crash PostgreSQL syncs its data before it replays the log. By default it opens and
// syncs each of its files, thousands of them. syncfs does the same for a whole file system at
// once. PostgreSQL has it since version 14, and Linux reports write errors from it since 5.8.
const (
	syncfsVersion = 14
	syncfsMajor   = 5
	syncfsMinor   = 8
)

// syncsWhole reports whether a server of this major version may use syncfs on a kernel
// without missing a write error.
func syncsWhole(version int, kernel string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(kernel, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return version >= syncfsVersion && (major > syncfsMajor || major == syncfsMajor && minor >= syncfsMinor)
}

// kernel is the release of the running kernel, "" if it cannot be read.
func kernel() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return string(text)
}
