package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// Warnings is a log handler that remembers what was last warned of, for the terminal of
// somebody who waits.
type Warnings struct {
	slog.Handler
	last *lastWarning
}

type lastWarning struct {
	mu   sync.Mutex // guards text
	text string
}

// WatchWarnings returns a handler that passes records to the log and remembers the last warning.
func WatchWarnings(log *slog.Logger) Warnings { return Warnings{log.Handler(), &lastWarning{}} }

// Enabled is also for warnings that the log leaves out.
func (t Warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || t.Handler.Enabled(ctx, level)
}

// Handle passes on every record that the log wants.
func (t Warnings) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		text := r.Message
		r.Attrs(func(a slog.Attr) bool {
			if slices.Contains([]string{"error", "fix", "line"}, a.Key) {
				text += ": " + a.Value.String()
			}
			return true
		})
		t.last.mu.Lock()
		t.last.text = text
		t.last.mu.Unlock()
	}
	if !t.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return t.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep what is remembered in one place.
func (t Warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return Warnings{t.Handler.WithAttrs(attrs), t.last}
}

// WithGroup is as WithAttrs.
func (t Warnings) WithGroup(name string) slog.Handler {
	return Warnings{t.Handler.WithGroup(name), t.last}
}

// Take returns the last warning and forgets it.
func (t Warnings) Take() (text string) {
	t.last.mu.Lock()
	defer t.last.mu.Unlock()
	text, t.last.text = t.last.text, ""
	return text
}

// patienceAtStart is how long a part may start before the terminal says what it waits
// for.
const patienceAtStart = 3 * time.Second

// sayWaiting writes what a part waits for, until the returned function is called.
// Each cause is written once.
func (t Warnings) sayWaiting(out io.Writer, part, logFile string, patience time.Duration) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(patience)
		defer ticker.Stop()
		said := "nothing yet"
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			switch text := t.Take(); {
			case text != "" && text != said:
				fmt.Fprintf(out, "  %-10s waiting: %s\n", part, plain.Lines(text))
				said = text
			case said == "nothing yet":
				fmt.Fprintf(out, "  %-10s waiting; the log is in %s\n", part, logFile)
				said = ""
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}
