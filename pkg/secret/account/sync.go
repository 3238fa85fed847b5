package account

import (
	"errors"
	"os"
)

// SyncPath brings a file, or the names in a folder, to disk: a renamed file keeps its new
// name after a power failure only once its folder is synced.
func SyncPath(path string) error {
	f, err := os.Open(path) //nolint:gosec // a path of the caller's own
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
