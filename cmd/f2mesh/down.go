package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
)

type downCommand struct {
	Timeout time.Duration `help:"Maximum time for the parts to drain and stop." default:"2m"`
	Volumes bool          `help:"Also remove all data: messages, tables, certificates and secrets. As root, also the data directories outside the state directory."`
	DryRun  bool          `help:"With --volumes: only show what would be removed. The mesh keeps running."`
}

// Run stops the mesh and waits until it has.
func (c *downCommand) Run(ctx context.Context, g *globals) error {
	st := state{dir: g.StateDir}
	switch {
	case c.DryRun && !c.Volumes:
		return errors.New("--dry-run is for --volumes")
	case c.DryRun:
		return removeState(st, os.Stdout, true)
	case !st.locked():
		fmt.Println("no mesh runs on", st.dir)
	default:
		if err := c.stop(ctx, st); err != nil {
			return err
		}
	}
	if c.Volumes {
		return removeState(st, os.Stdout, false)
	}
	return nil
}

func (c *downCommand) stop(ctx context.Context, st state) error {
	pid, err := st.holder()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	fmt.Println("stopping; messages in hand are stored first")
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for st.locked() {
		select {
		case <-bounded.Done():
			return fmt.Errorf("process %d has not stopped yet: see %s", pid, st.logFile())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if !c.Volumes {
		fmt.Println("stopped; the data stay in", st.dir)
	}
	return nil
}

// stateNames are what a mesh makes in its state directory. What somebody else put
// there stays.
func stateNames() []string {
	return []string{
		"devices", "f2mesh.log", lockFile, "mosquitto", "nats", "pgbouncer", "pki", "postgres", restoringFile, rootFolder, "rotation", "run.json",
		"run.json.new", "secrets", "simulate.lock", "up.done", "up.out", "vault",
	}
}

// removeState deletes what the mesh keeps, in the state directory and where account.Place
// put it. In a dry run it shows that alone.
func removeState(s state, out io.Writer, dry bool) error {
	entries, err := os.ReadDir(s.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintln(out, "nothing to remove:", s.dir, "is not there")
		return nil
	case err != nil:
		return fmt.Errorf("reading the state directory: %w", err)
	case !exists(s.path(lockFile)):
		return fmt.Errorf("%s is no state directory of a mesh: nothing was removed", s.dir)
	}
	said := "removed"
	if dry {
		said = "would remove"
	} else {
		lock, err := s.lock()
		if err != nil {
			return err
		}
		defer func() { _ = lock.Close() }()
	}
	left := 0
	for _, e := range entries {
		if !slices.Contains(stateNames(), e.Name()) {
			fmt.Fprintln(out, "not the mesh's, stays:", s.path(e.Name()))
			left++
			continue
		}
		place := s.path(e.Name())
		if target, err := os.Readlink(place); err == nil {
			place += " and " + target
		}
		if !dry {
			if err := account.Remove(s.path(e.Name())); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, said, place)
	}
	if dry || left > 0 {
		return nil
	}
	if err := os.Remove(filepath.Clean(s.dir)); err != nil {
		return fmt.Errorf("removing the state directory: %w", err)
	}
	return nil
}
