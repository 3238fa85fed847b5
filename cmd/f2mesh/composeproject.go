package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// composeProject is a mesh in containers as `docker compose` knows it.
type composeProject struct {
	dir string // of compose.yaml
}

// command is one of docker compose's, about the services of every profile. Ctrl-C is
// for this program to hand on.
func (p composeProject) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", slices.Concat([]string{"compose", "--profile", "*"}, args)...) //nolint:gosec // of our own
	cmd.Dir, cmd.Stderr = p.dir, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func (p composeProject) run(ctx context.Context, args ...string) error {
	return explain(args[0], p.command(ctx, args...).Run())
}

func explain(command string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("there is no Docker here (https://docs.docker.com/engine/install/)")
	}
	if err != nil {
		return fmt.Errorf("docker compose %s: %w", command, err)
	}
	return nil
}

// services are those that have a container: one that runs, or with "--all" any.
func (p composeProject) services(ctx context.Context, args ...string) ([]string, error) {
	out, err := p.command(ctx, append([]string{"ps", "--services"}, args...)...).Output()
	if err := explain("ps", err); err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// build makes the image, with the numbers of .env: an image of others would give its
// owner to the volumes.
func (p composeProject) build(ctx context.Context) error {
	return p.run(ctx, "build", "--quiet", "init")
}

// stop stops everything, writers before what they write to, and sees that it has.
func (p composeProject) stop(ctx context.Context) error {
	if err := p.run(ctx, "stop"); err != nil {
		return err
	}
	return p.stopped(ctx)
}

// stopped is an error if something runs.
func (p composeProject) stopped(ctx context.Context) error {
	left, err := p.services(ctx, "--status", "running")
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("%s was restarted by something else", strings.Join(left, ", "))
	}
	return err
}

// start lets these services go on.
func (p composeProject) start(ctx context.Context, services []string) error {
	if len(services) == 0 {
		return nil
	}
	return p.run(ctx, append([]string{"start"}, services...)...)
}

// volumes runs `f2mesh volumes` in the container that has all of them. Its streams are
// pipes; the service backup keeps no log, where they would be in clear.
func (p composeProject) volumes(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	cmd := p.command(ctx, append([]string{"run", "--rm", "--no-deps", "--no-TTY", "backup"}, args...)...)
	cmd.Stdin, cmd.Stdout = in, out
	return explain("run backup", cmd.Run())
}
