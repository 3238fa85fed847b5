// Package progress shows on a terminal how far a command is.
package progress

import (
	"os"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// redraw is the shortest time between two drawings.
const redraw = 100 * time.Millisecond

// Bar is a progress bar on standard error. Where that is no terminal it shows nothing.
// It is safe for concurrent use, and Set is cheap enough for every message.
type Bar struct {
	bar   *progressbar.ProgressBar // nil: not shown
	total atomic.Uint64
	drawn atomic.Int64 // when, in nanoseconds since 1970
}

// Count returns a bar that counts things, such as "messages".
func Count(what string) *Bar {
	return newBar(what, progressbar.OptionShowCount(), progressbar.OptionShowIts())
}

// Bytes returns a bar that counts bytes.
func Bytes(what string) *Bar { return newBar(what, progressbar.OptionShowBytes(true)) }

func newBar(what string, options ...progressbar.Option) *Bar {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return &Bar{}
	}
	options = append(options, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish())
	return &Bar{bar: progressbar.NewOptions64(-1, options...)}
}

// Set shows that done of total are finished. A total of 0 means that it is not known.
func (b *Bar) Set(done, total uint64) {
	now, last := time.Now().UnixNano(), b.drawn.Load()
	if b.bar == nil || now-last < int64(redraw) || !b.drawn.CompareAndSwap(last, now) {
		return
	}
	if total > 0 && b.total.Swap(total) != total {
		b.bar.ChangeMax64(int64(total)) //nolint:gosec // a number of messages or bytes
	}
	_ = b.bar.Set64(int64(done)) //nolint:gosec // the same
}

// Finish removes the bar.
func (b *Bar) Finish() {
	if b.bar != nil {
		_ = b.bar.Finish()
	}
}
