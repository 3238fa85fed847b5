package pgbouncer

import (
	"log/slog"
	"regexp"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// levels says what a severity of PgBouncer's log means to us. ERROR ends one
// session, such as that of a wrong password.
var levels = map[string]slog.Level{ //nolint:gochecknoglobals // a constant table
	"NOISE": slog.LevelDebug, "DEBUG": slog.LevelDebug, "LOG": slog.LevelInfo,
	"WARNING": slog.LevelWarn, "ERROR": slog.LevelWarn, "FATAL": slog.LevelError,
}

// prefix is time, zone and process id, which the logger has itself.
var prefix = regexp.MustCompile(`^[0-9-]+ [0-9:.]+ \S+ \[\d+\] ([A-Z]+) `) //nolint:gochecknoglobals // compiled once

// parseLine takes the severity off a line of PgBouncer's log,
// "DATE TIME ZONE [PID] SEVERITY TEXT". Statements and passwords are never in it.
func parseLine(line string) process.LogLine {
	found := prefix.FindStringSubmatch(line)
	if found == nil {
		return process.LogLine{Level: slog.LevelInfo, Text: strings.TrimSpace(line)}
	}
	level, known := levels[found[1]]
	if !known {
		level = slog.LevelInfo
	}
	return process.LogLine{Level: level, Text: strings.TrimSpace(line[len(found[0]):])}
}
