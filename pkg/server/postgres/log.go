package postgres

import (
	"log/slog"
	"regexp"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// levels says what a severity of PostgreSQL's log means to us. ERROR and FATAL
// end one statement or one session, PANIC the server.
var levels = map[string]slog.Level{ //nolint:gochecknoglobals // a constant table
	"DEBUG": slog.LevelDebug, "LOG": slog.LevelInfo, "INFO": slog.LevelInfo, "NOTICE": slog.LevelInfo,
	"HINT": slog.LevelInfo, "WARNING": slog.LevelWarn, "ERROR": slog.LevelWarn, "FATAL": slog.LevelWarn,
	"PANIC": slog.LevelError,
}

// quoted is a value or name inside a message, or the part of one on this line.
var quoted = regexp.MustCompile(`"[^"]*("|$)`) //nolint:gochecknoglobals // compiled once

// parseLine takes the severity off a line of PostgreSQL's log, "SEVERITY:  text".
// Checkpoints, which come every few minutes, are for debugging.
//
// The message of an ERROR may quote a value of the statement, and so what a
// controller sent. What is in quotes is left out, and so are further lines of any
// message, which begin with a tab. The client that made the error got it whole.
func parseLine(line string) process.LogLine {
	if strings.HasPrefix(line, "\t") {
		return process.LogLine{}
	}
	severity, text, ok := strings.Cut(line, ":  ")
	level, known := levels[severity]
	if !ok || !known {
		return process.LogLine{Level: slog.LevelInfo, Text: strings.TrimSpace(line)}
	}
	if severity == "ERROR" {
		text = quoted.ReplaceAllString(text, `"..."`)
	}
	if level == slog.LevelInfo && strings.HasPrefix(text, "checkpoint ") {
		level = slog.LevelDebug
	}
	return process.LogLine{Level: level, Text: text}
}
