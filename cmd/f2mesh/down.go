package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

type downCommand struct {
	Timeout time.Duration `help:"How long to wait for the parts to drain and stop." default:"2m"`
}

// Run stops the mesh and waits until it has.
func (c *downCommand) Run(ctx context.Context, g *globals) error {
	st := state{dir: g.StateDir}
	if !st.locked() {
		fmt.Println("no mesh runs on", st.dir)
		return nil
	}
	r, err := st.last()
	if err != nil {
		return errors.New("the mesh is still starting; try again in a moment")
	}
	if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping process %d: %w", r.PID, err)
	}
	fmt.Println("stopping; messages in hand are stored first")
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	for st.locked() {
		select {
		case <-bounded.Done():
			return fmt.Errorf("process %d has not stopped yet: see %s", r.PID, st.logFile())
		case <-time.After(100 * time.Millisecond):
		}
	}
	fmt.Println("stopped; the data stay in", st.dir)
	return nil
}
