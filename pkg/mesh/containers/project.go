package containers

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

// Project is a mesh in containers as `docker compose` knows it.
type Project struct {
	Dir string // of compose.yaml
}

// command is one of docker compose's, about the services of every profile. Ctrl-C is for this program to hand on.
func (p Project) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "docker", slices.Concat([]string{"compose", "--profile", "*"}, args)...) //nolint:gosec // of our own
	cmd.Dir, cmd.Stderr = p.Dir, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 30 * time.Second
	return cmd
}

func (p Project) run(ctx context.Context, args ...string) error {
	cmd := p.command(ctx, args...)
	cmd.Stdout = os.Stderr
	return explain(args[0], cmd.Run())
}

func explain(command string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return errors.New("docker is not installed (https://docs.docker.com/engine/install/)")
	}
	if err != nil {
		return fmt.Errorf("docker compose %s: %w", command, err)
	}
	return nil
}

// containers lists the services that have a container, whether or not it runs.
func (p Project) containers(ctx context.Context) ([]string, error) {
	out, err := p.command(ctx, "ps", "--services", "--all").Output()
	if err := explain("ps", err); err != nil {
		return nil, err
	}
	return strings.Fields(string(out)), nil
}

// build makes the image, with the numbers of .env: an image of others would give its owner to the volumes.
func (p Project) build(ctx context.Context) error { return p.run(ctx, "build", "--quiet", "init") }

// within runs a command of f2mesh in a container of a service. It reads what send writes.
func (p Project) within(ctx context.Context, service string, args []string, send func(io.Writer) error, out, problems io.Writer) error {
	cmd := p.command(ctx, slices.Concat([]string{"run", "--rm", "--no-deps", "--no-TTY", service}, args)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return explain("run", err)
	}
	cmd.Stdout, cmd.Stderr = out, problems
	if err := cmd.Start(); err != nil {
		return explain("run", err)
	}
	sent := make(chan error, 1)
	go func() {
		err := send(in)
		if errors.Is(err, syscall.EPIPE) {
			err = nil // the container says why it reads no more
		}
		sent <- errors.Join(err, ignoreClosed(in.Close()))
	}()
	sending := <-sent
	if sending != nil {
		_ = cmd.Cancel() // what it has is not all of it
	}
	return errors.Join(sending, explain("run "+service, cmd.Wait()))
}

func ignoreClosed(err error) error {
	if errors.Is(err, os.ErrClosed) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
