package mosquitto

import (
	"log/slog"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// parseLine takes the level out of a line of Mosquitto's log, "<seconds>: text",
// which has it only in the words that the text begins with. Who connects and
// leaves is for debugging.
func parseLine(line string) process.LogLine {
	line = withoutTime(line)
	level := slog.LevelInfo
	switch {
	case strings.HasPrefix(line, "Error"):
		level = slog.LevelError
	case strings.HasPrefix(line, "Warning"):
		level = slog.LevelWarn
	case strings.HasPrefix(line, "New c") || strings.HasPrefix(line, "Client "):
		level = slog.LevelDebug
	}
	return process.LogLine{Level: level, Text: line}
}

func withoutTime(line string) string {
	if seconds, text, ok := strings.Cut(line, ": "); ok && strings.Trim(seconds, "0123456789") == "" {
		return text
	}
	return line
}

// parse takes from a log for debugging what it is on for, and drops what it has of
// each message.
func (c Config) parse() func(line string) process.LogLine {
	if c.Denied == nil {
		return parseLine
	}
	return func(line string) process.LogLine {
		text := withoutTime(line)
		if strings.HasPrefix(text, "Denied PUBLISH from ") {
			c.Denied(text)
			return process.LogLine{Level: slog.LevelWarn, Text: text}
		}
		for _, prefix := range []string{"Received ", "Sending ", "\t", "No will message", "Will message"} {
			if strings.HasPrefix(text, prefix) {
				return process.LogLine{}
			}
		}
		return parseLine(line)
	}
}
