package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

// OpenLog is where the log goes when people see the summary and the rates.
func OpenLog(st mesh.State, out io.Writer) (*os.File, error) {
	file, err := os.OpenFile(st.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log: %w", err)
	}
	fmt.Fprintf(out, "starting; the log is in %s\n", st.LogFile())
	return file, nil
}

// Detach starts this command again as a process of its own, waits until its
// mesh is up, and shows what it shows.
func Detach(ctx context.Context, st mesh.State) error {
	if st.Locked() {
		return mesh.ErrAlreadyRunning
	}
	if err := os.MkdirAll(st.Dir, 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	file, err := os.OpenFile(st.LogFile(), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { _ = file.Close() }()
	logged, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	if err := os.Remove(st.Path("up.done")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the last start: %w", err)
	}
	shown, err := os.Create(st.Path("up.out"))
	if err != nil {
		return fmt.Errorf("opening the output: %w", err)
	}
	defer func() { _ = shown.Close() }()
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	args := slices.DeleteFunc(slices.Clone(os.Args[1:]), func(a string) bool { return a == "--detach" || a == "-d" })
	child := exec.Command(self, args...) //nolint:gosec,noctx // this program, which outlives this process
	child.Args[0] = os.Args[0]           // for what it tells people to type
	child.Stdout, child.Stderr = shown, file
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting in the background: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	return follow(ctx, st, ended, func() string { return lastError(file, logged) })
}

// lastError is what the program in the background wrote to the log, beyond its
// first skip bytes, as the cause of its end.
func lastError(log io.ReaderAt, skip int64) (cause string) {
	lines := bufio.NewScanner(io.NewSectionReader(log, skip, math.MaxInt64-skip))
	for lines.Scan() {
		if message, ok := strings.CutPrefix(lines.Text(), "f2mesh: "); ok {
			cause = message
		}
	}
	return cause
}

// follow copies what the child shows until its summary is complete.
func follow(ctx context.Context, st mesh.State, ended <-chan error, cause func() string) error {
	in, err := os.Open(st.Path("up.out"))
	if err != nil {
		return fmt.Errorf("reading the output: %w", err)
	}
	defer func() { _ = in.Close() }()
	for {
		up := mesh.Exists(st.Path("up.done"))
		if _, err := io.Copy(os.Stdout, in); err != nil {
			return fmt.Errorf("reading the output: %w", err)
		}
		if up {
			fmt.Printf("running in the background; the log is in %s, stop it with: %s\n", st.LogFile(), st.Command("down"))
			return nil
		}
		select {
		case err := <-ended:
			_, _ = io.Copy(os.Stdout, in)
			if cause := cause(); cause != "" {
				err = errors.New(cause)
			}
			return fmt.Errorf("the mesh did not come up: %w; the log is in %s", err, st.LogFile())
		case <-ctx.Done():
			return fmt.Errorf("interrupted while the mesh was starting; it goes on in the background: %s stops it", st.Command("down"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
