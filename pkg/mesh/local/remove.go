package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

// stateNames are what a mesh makes in its state directory. What somebody else put
// there stays.
func stateNames() []string {
	return []string{
		"devices", "f2mesh.log", mesh.LockFile, "mosquitto", "nats", "pgbouncer", "pki", "postgres", RestoringFile, mesh.RootFolder, "rotation", "run.json",
		"run.json.new", "secrets", "simulate.lock", "up.done", "up.out", "vault",
	}
}

// Remove deletes what the mesh keeps, in the state directory and where account.Place
// put it. In a dry run it shows that alone.
func Remove(s mesh.State, out io.Writer, dry bool) error {
	entries, err := os.ReadDir(s.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(out, "nothing to remove:", s.Dir, "is not there")
		return nil
	case err != nil:
		return fmt.Errorf("reading the state directory: %w", err)
	case !mesh.Exists(s.Path(mesh.LockFile)):
		return fmt.Errorf("%s is no state directory of a mesh: nothing was removed", s.Dir)
	}
	said := "removed"
	if dry {
		said = "would remove"
	} else {
		lock, err := s.Lock()
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }()
	}
	left := 0
	for _, e := range entries {
		if !slices.Contains(stateNames(), e.Name()) {
			fmt.Fprintln(out, "not the mesh's, stays:", s.Path(e.Name()))
			left++
			continue
		}
		place := s.Path(e.Name())
		if target, err := os.Readlink(place); err == nil {
			place += " and " + target
		}
		if !dry {
			if err := account.Remove(s.Path(e.Name())); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, said, place)
	}
	if dry || left > 0 {
		return nil
	}
	if err := os.Remove(filepath.Clean(s.Dir)); err != nil {
		return fmt.Errorf("removing the state directory: %w", err)
	}
	return nil
}
