package mosquitto

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

const (
	// shortestPause and longestPause are between two saves. The longest is
	// autosave_interval of mosquitto.conf: the broker saves by itself, too.
	shortestPause = 250 * time.Millisecond
	longestPause  = 10 * time.Second
	// saveShare is how many times longer than a save the pause after it is. The broker
	// serves nobody during a save.
	saveShare = 20
	// saveLook is how often the saver looks for the end of a save.
	saveLook = 5 * time.Millisecond
)

// KeepSaved has a broker save its sessions and queues often, as long as a save takes little
// of its time, that is while its queues are short. It ends with ctx. data is the broker's
// data folder, and signal sends the broker SIGUSR1. The broker must serve already: one that
// starts dies of the signal.
//
// A message that the broker has acknowledged, and that is neither with the bridge nor saved,
// is lost if the broker is killed. Mosquitto's own interval is whole seconds, and counts
// neither the queues nor the time that a save takes.
func KeepSaved(ctx context.Context, data string, signal func() error) {
	pause := shortestPause
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		took, err := save(ctx, data, signal)
		pause = min(max(shortestPause, saveShare*took), longestPause)
		if err != nil {
			pause = longestPause
		}
	}
}

// save returns how long a save took, once it would survive a power failure. A broker that
// cannot save logs why.
func save(ctx context.Context, data string, signal func() error) (took time.Duration, err error) {
	path := filepath.Join(data, savedFile)
	last := changed(path)
	ctx, cancel := context.WithTimeout(ctx, longestPause)
	defer cancel()
	if err := signal(); err != nil {
		return 0, err
	}
	var began time.Time
	for {
		if began.IsZero() && !changed(path+".new").IsZero() {
			began = time.Now()
		}
		if !changed(path).Equal(last) {
			if !began.IsZero() {
				took = time.Since(began)
			}
			return took, syncFolder(data)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(saveLook):
		}
	}
}

// changed returns when a file was written last, and a zero time if there is none.
func changed(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
