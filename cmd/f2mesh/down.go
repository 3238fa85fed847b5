package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

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
		if err := local.Stop(ctx, st, c.Timeout, os.Stdout); err != nil {
			return err
		}
		if !c.Volumes {
			fmt.Println("the data stay in", st.Dir)
		}
	}
	if c.Volumes {
		return local.Remove(st, os.Stdout, false)
	}
	return nil
}
