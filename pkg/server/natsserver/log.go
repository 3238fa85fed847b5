package natsserver

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// logger passes the server's log on. Debug and trace, which show payloads, are
// never switched on.
type logger struct {
	log   *slog.Logger
	fatal chan string

	once   sync.Once
	failed chan struct{} // closed at the first error after which JetStream stores nothing more

	mu       sync.Mutex
	warnings []string // the first maxWarnings
}

// maxWarnings is how many warnings are kept to explain a failed start.
const maxWarnings = 100

func newLogger(log *slog.Logger) *logger {
	return &logger{log: log, fatal: make(chan string, 1), failed: make(chan struct{})}
}

func (l *logger) write(level slog.Level, format string, arguments ...any) string {
	line := strings.TrimSpace(fmt.Sprintf(format, arguments...))
	if line != "" {
		l.log.Log(context.Background(), level, "server log", "line", line)
	}
	return line
}

// Noticef logs at debug level: at start the server says two dozen things at once.
func (l *logger) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v...) }

// Warnf logs at warning level.
func (l *logger) Warnf(format string, v ...any) {
	line := l.write(slog.LevelWarn, format, v...)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.warnings) < maxWarnings {
		l.warnings = append(l.warnings, line)
	}
}

// warningAbout returns the last of the first warnings that names a stream, or "".
func (l *logger) warningAbout(stream string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range slices.Backward(l.warnings) {
		if strings.Contains(line, `"`+stream+`"`) || strings.Contains(line, "/"+stream+"/") {
			return line
		}
	}
	return ""
}

// Errorf logs at error level, and notes an error that lasts until the server restarts: the
// server says so nowhere else (filestore.go and jetstream.go of nats-server 2.15.2).
func (l *logger) Errorf(format string, v ...any) {
	line := l.write(slog.LevelError, format, v...)
	if strings.Contains(line, "Critical write error") || strings.Contains(line, "will be DISABLED") {
		l.once.Do(func() { close(l.failed) })
	}
}

// Fatalf is what a stand-alone server would exit after. Here Start returns it.
func (l *logger) Fatalf(format string, v ...any) {
	line := l.write(slog.LevelError, format, v...)
	select {
	case l.fatal <- line:
	default: // Start looks at the first only
	}
}

// Debugf is never called.
func (l *logger) Debugf(string, ...any) {}

// Tracef is never called.
func (l *logger) Tracef(string, ...any) {}
