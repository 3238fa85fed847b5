package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// initialise makes the cluster's data under another name and puts it in place
// when it is complete: a start that was broken off leaves nothing half done.
func (s *starter) initialise(ctx context.Context) error {
	data, making := s.path("data"), s.path("data.new")
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("making cluster: %w", err)
	}
	password := s.path("superuser")
	defer func() { _ = os.Remove(password) }() // initdb alone needs it
	if err := s.owner.WriteFile(password, []byte(s.cfg.SuperuserPassword+"\n"), 0o600); err != nil {
		return fmt.Errorf("making cluster: %w", err)
	}
	if err := s.initdb(ctx, making, password); err != nil {
		return fmt.Errorf("making cluster: %w", err)
	}
	if err := os.Rename(making, data); err != nil {
		return fmt.Errorf("making cluster: %w", err)
	}
	return nil
}

func (s *starter) initdb(ctx context.Context, data, passwordFile string) error {
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, "initdb"), //nolint:gosec // a found PostgreSQL
		"--pgdata", data, "--username", Superuser, "--pwfile", passwordFile,
		"--auth", "scram-sha-256", "--data-checksums",
		"--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions")
	cmd.Dir = s.dir
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: s.owner.Credential()}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, process.LastLine(output.String()))
	}
	return nil
}

// environment keeps PGDATA, PGPORT and related variables of the caller away.
func environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
}
