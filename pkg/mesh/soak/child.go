package soak

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// child is one process of the mesh, which is started again whenever it ends. It is safe
// for concurrent use.
type child struct {
	name string
	log  *slog.Logger

	mu      sync.Mutex
	program string
	args    []string
	env     []string
	now     *process.Process
	started time.Time // the last start
	halted  bool
	done    sync.WaitGroup
}

// start starts the process and keeps it running until halt.
func (c *child) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.halted = false
	if err := c.launch(); err != nil {
		return err
	}
	c.done.Go(c.keep)
	return nil
}

func (c *child) launch() error {
	p, err := process.Start(process.Config{
		Path: c.program, Args: c.args, Dir: "/", Env: c.env, Orphaned: syscall.SIGKILL, Log: c.log.With("process", c.name),
		Parse: parseLine,
	})
	if err != nil {
		return err
	}
	c.now, c.started = p, time.Now()
	return nil
}

// parseLine shows why a process ended, which `f2mesh` prints last. What else it logs is for debugging.
func parseLine(line string) process.LogLine {
	if strings.HasPrefix(line, "f2mesh: ") {
		return process.LogLine{Level: slog.LevelWarn, Text: line}
	}
	return process.LogLine{Level: slog.LevelDebug, Text: line}
}

func (c *child) keep() {
	for {
		c.mu.Lock()
		p := c.now
		c.mu.Unlock()
		<-p.Done()
		time.Sleep(100 * time.Millisecond)
		c.mu.Lock()
		if c.halted {
			c.mu.Unlock()
			return
		}
		err := c.launch()
		c.mu.Unlock()
		if err != nil {
			c.log.Error("starting again", "process", c.name, "error", err)
			time.Sleep(time.Second)
		}
	}
}

// Signal sends a signal to the process of now.
func (c *child) Signal(s syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now.Signal(s)
}

// halt ends the process for good, by SIGKILL or, if graceful, by SIGTERM first.
func (c *child) halt(graceful bool) {
	c.mu.Lock()
	c.halted = true
	p := c.now
	c.mu.Unlock()
	if p == nil {
		return
	}
	if graceful {
		bounded, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_ = p.Stop(bounded, syscall.SIGTERM)
		cancel()
	}
	_ = p.Kill()
	c.done.Wait()
}

// replace runs another program from the next start on.
func (c *child) replace(program string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.program = program
}

// signalTree sends a signal to a process and to all that it started, such as PostgreSQL's
// backends.
func signalTree(pid int, s syscall.Signal) error {
	if err := syscall.Kill(pid, s); err != nil {
		return fmt.Errorf("signalling process %d: %w", pid, err)
	}
	entries, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		text, err := os.ReadFile(entry) //nolint:gosec // of the kernel
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if id, err := strconv.Atoi(filepath.Base(filepath.Dir(entry))); err == nil {
			_ = syscall.Kill(id, s)
		}
	}
	return nil
}
