package mosquitto

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/f2mesh/f2mesh/pkg/account"
)

// reloadFile stands in the folder of a broker that runs where its process cannot
// be signalled, in another container. Reload writes it, Follow watches it.
const reloadFile = "reload"

// followInterval is how soon Follow sees what Reload asks for.
const followInterval = 100 * time.Millisecond

// Follow calls reload each time that Reload is called on dir, by whichever
// container that shares the folder, until ctx ends. It needs no right to write.
func Follow(ctx context.Context, dir string, reload func() error) error {
	path := filepath.Join(dir, reloadFile)
	last, err := os.ReadFile(path) //nolint:gosec // the broker's own folder
	if err != nil {
		return err
	}
	ticker := time.NewTicker(followInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now, err := os.ReadFile(path) //nolint:gosec // the broker's own folder
		if err != nil || bytes.Equal(now, last) {
			continue
		}
		if err := reload(); err != nil {
			return err
		}
		last = now
	}
}

// requestReload asks whoever follows the folder. There is no answer: what the
// broker does then tells.
func requestReload(dir string) error {
	path := filepath.Join(dir, reloadFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ErrNotRunning
	}
	var self account.Account
	return self.WriteFile(path, []byte(strconv.FormatInt(time.Now().UnixNano(), 10)+"\n"), 0o600)
}
