package main

import (
	"context"
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
	fmt.Println("stopped; the data stay in", st.dir)
	return nil
}
