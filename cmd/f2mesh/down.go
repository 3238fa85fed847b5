package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
)

type downCommand struct {
	Timeout time.Duration `help:"Maximum time for the parts to drain and stop." default:"2m"`
	Volumes bool          `help:"Also remove all data: messages, tables, certificates and secrets. As root, also the data directories outside the state directory."`
	DryRun  bool          `help:"With --volumes: only show what would be removed. The mesh keeps running."`
}

// Run stops the mesh and waits until it has.
func (c *downCommand) Run(ctx context.Context, g *globals) error {
	st := g.state()
	switch {
	case c.DryRun && !c.Volumes:
		return errors.New("--dry-run is for --volumes")
	case c.DryRun:
		return local.Remove(st, os.Stdout, true)
	case !st.Locked():
		fmt.Println("no mesh runs on", st.Dir)
	default:
		if err := c.stop(ctx, st); err != nil {
			return err
		}
	}
	if c.Volumes {
		return local.Remove(st, os.Stdout, false)
	}
	return nil
}

func (c *downCommand) stop(ctx context.Context, st mesh.State) error {
	pid, err := st.Holder()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	fmt.Println("stopping; messages in hand are stored first")
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for st.Locked() {
		select {
		case <-bounded.Done():
			return fmt.Errorf("process %d has not stopped yet: see %s", pid, st.LogFile())
		case <-time.After(100 * time.Millisecond):
		}
	}
	if !c.Volumes {
		fmt.Println("stopped; the data stay in", st.Dir)
	}
	return nil
}
