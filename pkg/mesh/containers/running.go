package containers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// Running returns the ids of the containers of services. Each must run.
func (p Project) Running(ctx context.Context, services ...string) (ids map[string]string, err error) {
	ids = map[string]string{}
	for _, service := range services {
		out, err := p.command(ctx, "ps", "--quiet", service).Output()
		if err := explain("ps", err); err != nil {
			return nil, err
		}
		id := strings.TrimSpace(string(out))
		if id == "" || strings.Contains(id, "\n") {
			return nil, fmt.Errorf("the service %s must run in one container: ./task compose:up starts it", service)
		}
		ids[service] = id
	}
	return ids, nil
}

// Operate runs a command of f2mesh in a container of its own of a service, such as operator.
func (p Project) Operate(ctx context.Context, service string, args ...string) error {
	var out bytes.Buffer
	if err := p.within(ctx, service, args, func(io.Writer) error { return nil }, &out, &out); err != nil {
		return fmt.Errorf("%w: %s", err, process.LastLine(out.String()))
	}
	return nil
}

// Build makes the image for Operate, if it is not there.
func (p Project) Build(ctx context.Context) error { return p.build(ctx) }

// Ended returns when the processes of a container ended that does not run any more.
func Ended(ctx context.Context, id string) (time.Time, error) {
	out, err := exec.CommandContext(ctx, "docker", "inspect", "--format", "{{.State.FinishedAt}}", id).Output() //nolint:gosec // of our own
	if err != nil {
		return time.Time{}, fmt.Errorf("docker inspect: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, strings.TrimSpace(string(out)))
	if err != nil {
		return time.Time{}, fmt.Errorf("docker inspect: %w", err)
	}
	return at, nil
}

// Docker runs a command of docker about containers, such as kill.
func Docker(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput() //nolint:gosec // of our own
	if errors.Is(err, exec.ErrNotFound) {
		return explain(args[0], err)
	}
	if err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, process.LastLine(string(out)))
	}
	return nil
}
