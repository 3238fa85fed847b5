package mosquitto

import (
	"log/slog"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/process"
)

// parseLine takes the level out of a line of Mosquitto's log, "<seconds>: text",
// which has it only in the words that the text begins with. Who connects and
// leaves is for debugging.
func parseLine(line string) process.Line {
	if seconds, text, ok := strings.Cut(line, ": "); ok && strings.Trim(seconds, "0123456789") == "" {
		line = text
	}
	level := slog.LevelInfo
	switch {
	case strings.HasPrefix(line, "Error"):
		level = slog.LevelError
	case strings.HasPrefix(line, "Warning"):
		level = slog.LevelWarn
	case strings.HasPrefix(line, "New c") || strings.HasPrefix(line, "Client "):
		level = slog.LevelDebug
	}
	return process.Line{Level: level, Text: line}
}
