// Package process runs one server as a child of this process.
//
// The child never outlives us unseen: the kernel sends it Config.Orphaned when
// we die, however that happens (Linux only). It is in a process group of its
// own, so that Ctrl-C in a terminal reaches us and we stop things in order. What
// it writes goes line by line to the logger and is never kept beyond the last
// few lines, which Tail returns for an error message.
//
// The package does not restart anything. Process.mu guards tail alone; the
// exit status is written before done is closed and read only after.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// LogLine is what Config.Parse made of one line of the child's log. One without text
// is not logged.
type LogLine struct {
	Level slog.Level
	Text  string
}

// Config says what to run. Path and Log are required.
type Config struct {
	// Path is the program, Args its arguments without its own name.
	Path string
	Args []string
	// Dir is the child's working directory, Env its whole environment.
	Dir string
	Env []string
	// Credential is the account to run as, nil for our own.
	Credential *syscall.Credential
	// Orphaned is the signal that the child gets when we die; 0 means SIGTERM.
	Orphaned syscall.Signal
	// Parse reads the level out of a line. Lines are logged at Info without it.
	Parse func(line string) LogLine
	// Log receives the child's output.
	Log *slog.Logger
}

// Process is a started child. All methods are safe for concurrent use.
type Process struct {
	pid  int
	done chan struct{}
	err  error

	mu   sync.Mutex
	tail []string
}

// Start starts the child and returns once it runs or could not be started.
func Start(cfg Config) (*Process, error) {
	if err := allowFiles(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Path, err)
	}
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(cfg, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cfg.Path, err)
	}
	return p, nil
}

// MaxOpenFiles is how many files a child may have open, connections among them, as far as the
// system lets it. It is the limit of the containers in compose.yaml.
const MaxOpenFiles = 65536

// allowFiles has children take our limit of open files. Without it, Go gives them the one
// that we were started with: 1,024 from most shells, which is full while a broker still has
// room for 19,000 clients.
func allowFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("reading the limit of open files: %w", err)
	}
	limit.Cur = min(limit.Max, MaxOpenFiles)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	return nil
}

// run holds its operating system thread from fork to exit: the kernel sends the
// parent-death signal when that thread ends, not when the process does.
func (p *Process) run(cfg Config, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := command(cfg)
	output, input, err := os.Pipe()
	if err != nil {
		started <- err
		return
	}
	cmd.Stdout, cmd.Stderr = input, input
	err = cmd.Start()
	_ = input.Close() // the child has its own
	if err != nil {
		_ = output.Close()
		started <- err
		return
	}
	p.pid = cmd.Process.Pid
	read := make(chan struct{})
	go p.follow(output, cfg, read)
	started <- nil
	p.err = cmd.Wait()
	<-read
	close(p.done)
}

func command(cfg Config) *exec.Cmd {
	orphaned := cfg.Orphaned
	if orphaned == 0 {
		orphaned = syscall.SIGTERM
	}
	cmd := exec.Command(cfg.Path, cfg.Args...) //nolint:gosec,noctx // the caller names a server; Stop ends it in its own way
	cmd.Dir = cfg.Dir
	cmd.Env = cfg.Env
	if cmd.Env == nil {
		cmd.Env = []string{}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: orphaned, Credential: cfg.Credential}
	return cmd
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.pid }

// Done is closed when the child has exited and all it wrote is logged.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the child exited: nil for status 0. It blocks until Done.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Signal sends the child a signal. One that has exited is not an error.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := syscall.Kill(p.pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signalling process %d: %w", p.pid, err)
	}
	return nil
}

// Stop sends the signal that makes the child stop in order and waits for it.
// When ctx ends first the child is killed and the context's error returned.
func (p *Process) Stop(ctx context.Context, signal syscall.Signal) error {
	if err := p.Signal(signal); err != nil {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stopping process %d: %w", p.pid, ctx.Err()), p.Kill())
	}
}

// Kill ends the child and all its descendants at once, as a crash would, and
// waits until the child is gone. The child is halted first, so that it cannot
// make another descendant while they are looked up.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	waitHalted(p.pid)
	family := descendants(p.pid)
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	for _, pid := range family {
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is as good
	}
	<-p.done
	return waitGone(family)
}

// Tail returns the last lines that the child wrote.
func (p *Process) Tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.tail, "\n")
}

// LastLine returns the last line of a program's output that is not empty: what went wrong.
func LastLine(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return lines[len(lines)-1]
}

// follow logs the output until every holder of the pipe has closed it.
func (p *Process) follow(output io.ReadCloser, cfg Config, read chan<- struct{}) {
	defer close(read)
	defer func() { _ = output.Close() }()
	scan(output, func(text string) {
		p.remember(text)
		line := LogLine{Level: slog.LevelInfo, Text: text}
		if cfg.Parse != nil {
			line = cfg.Parse(text)
		}
		if line.Text != "" {
			cfg.Log.Log(context.Background(), line.Level, "server log", "line", line.Text)
		}
	})
}

// remember keeps the last lines of the output.
func (p *Process) remember(line string) {
	const kept = 8
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tail) == kept {
		p.tail = append(p.tail[:0], p.tail[1:]...)
	}
	p.tail = append(p.tail, line)
}
