package mosquitto

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

const (
	// shortestPause and longestPause are between two saves. The longest is
	// autosave_interval of mosquitto.conf: the broker saves by itself, too.
	shortestPause = 250 * time.Millisecond
	longestPause  = 10 * time.Second
	// saveShare is how many times longer than a save the pause after it is. The broker
	// serves nobody during a save.
	saveShare = 10
	// sessionRate is how many bytes a second are written for what is in every save, the
	// sessions: 10,000 persistent ones are some MB, and a disk wears out.
	sessionRate = 4 << 20
	// saveLook is how often the saver looks for the end of a save.
	saveLook = 5 * time.Millisecond
)

// KeepSaved has a broker save its sessions and queues often, as long as a save takes little
// of its time, that is while its queues are short. It ends with ctx. data is the broker's
// data folder, and signal sends the broker SIGUSR1. The broker must serve already: one that
// starts dies of the signal.
//
// A message that the broker has acknowledged, and that is neither with the bridge nor saved,
// is lost if the broker is killed. Mosquitto's own interval is whole seconds, and does not
// depend on the length of the queues.
func KeepSaved(ctx context.Context, data string, signal func() error) {
	s := saver{data: data, signal: signal, smallest: math.MaxInt64}
	pause := shortestPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		took, err := s.save(ctx)
		if pause = s.pause(took); err != nil {
			pause = longestPause
		}
	}
}

type saver struct {
	data     string
	signal   func() error
	smallest int64 // size of the smallest save: the sessions
}

// pause returns the time until the next save.
func (s *saver) pause(took time.Duration) time.Duration {
	sessions := time.Duration(float64(s.smallest) / sessionRate * float64(time.Second))
	return min(max(shortestPause, saveShare*took, sessions), longestPause)
}

// save returns how long a save took, once it would survive a power failure. A broker that
// cannot save logs why.
func (s *saver) save(ctx context.Context) (took time.Duration, err error) {
	path := filepath.Join(s.data, savedFile)
	last, _ := look(path)
	ctx, cancel := context.WithTimeout(ctx, longestPause)
	defer cancel()
	if err := s.signal(); err != nil {
		return 0, err
	}
	var began time.Time
	for {
		if _, size := look(path + ".new"); size >= 0 && began.IsZero() {
			began = time.Now()
		}
		if changed, size := look(path); !changed.Equal(last) {
			if !began.IsZero() {
				took = time.Since(began)
			}
			s.smallest = min(s.smallest, size)
			return took, account.SyncPath(s.data)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(saveLook):
		}
	}
}

// look returns when a file was written last and its size, or a zero time and -1.
func look(path string) (changed time.Time, size int64) {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}, -1
	}
	return info.ModTime(), info.Size()
}
