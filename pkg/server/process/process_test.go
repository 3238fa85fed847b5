package process

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const patience = 10 * time.Second

// parentOf makes the test binary start a child and wait to be killed.
const parentOf = "PROCESS_TEST_PARENT_OF"

func TestMain(m *testing.M) {
	if script := os.Getenv(parentOf); script != "" {
		p, err := Start(shell(script, io.Discard))
		endThreads()
		fmt.Println(p.Pid(), err)
		select {} // until the test kills this process
	}
	goleak.VerifyTestMain(m)
}

// endThreads ends the threads of the operating system that are idle, as it happens
// by chance in a program that runs for long.
func endThreads() {
	for range 20 {
		ended := make(chan struct{})
		go func() {
			runtime.LockOSThread() // a thread that is not unlocked ends with its goroutine
			close(ended)
		}()
		<-ended
	}
}

func shell(script string, log io.Writer) Config {
	return Config{
		Path: "/bin/sh", Args: []string{"-c", script}, Env: []string{"PATH=" + os.Getenv("PATH")},
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func start(t *testing.T, cfg Config) *Process {
	t.Helper()
	p, err := Start(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Kill()) })
	return p
}

func TestOutputIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	cfg := shell(`echo first; echo hidden; echo "W second" >&2; printf last; exit 3`, &log)
	cfg.Parse = func(line string) LogLine {
		switch text, warning := strings.CutPrefix(line, "W "); {
		case warning:
			return LogLine{Level: slog.LevelWarn, Text: text}
		case line == "hidden":
			return LogLine{}
		default:
			return LogLine{Level: slog.LevelDebug, Text: line}
		}
	}
	p := start(t, cfg)
	require.ErrorContains(t, p.Err(), "exit status 3")
	assert.Contains(t, log.String(), `level=DEBUG msg="server log" line=first`)
	assert.Contains(t, log.String(), `level=WARN msg="server log" line=second`)
	assert.Contains(t, log.String(), `line=last`)
	assert.NotContains(t, log.String(), "hidden")
	assert.Equal(t, "first\nhidden\nW second\nlast", p.Tail())
}

func TestTailIsBounded(t *testing.T) {
	t.Parallel()
	p := start(t, shell("for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; done", io.Discard))
	require.NoError(t, p.Err())
	assert.Equal(t, "3\n4\n5\n6\n7\n8\n9\n10", p.Tail())
}

func TestScanCutsLongLines(t *testing.T) {
	t.Parallel()
	var lines []string
	text := strings.Repeat("x", 3*longest) + "\nshort\r\n\nend"
	scan(strings.NewReader(text), func(line string) { lines = append(lines, line) })
	assert.Equal(t, []string{strings.Repeat("x", longest), "short", "end"}, lines)
}

func TestStartTellsWhatIsMissing(t *testing.T) {
	t.Parallel()
	_, err := Start(Config{Path: "/nonexistent/server", Log: slog.New(slog.DiscardHandler)})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestStop(t *testing.T) {
	t.Parallel()
	orderly := start(t, shell(`trap "exit 0" TERM; echo ready; while :; do sleep 0.01; done`, io.Discard))
	require.Eventually(t, func() bool { return orderly.Tail() == "ready" }, patience, time.Millisecond)
	require.NoError(t, orderly.Stop(t.Context(), syscall.SIGTERM))
	require.NoError(t, orderly.Err())
	require.NoError(t, orderly.Stop(t.Context(), syscall.SIGTERM), "stopping again")

	stubborn := start(t, shell(`trap "" TERM; echo ready; while :; do sleep 0.01; done`, io.Discard))
	require.Eventually(t, func() bool { return stubborn.Tail() == "ready" }, patience, time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, stubborn.Stop(ctx, syscall.SIGTERM), context.DeadlineExceeded)
	assert.False(t, Alive(stubborn.Pid()), "killed when time is up")
}

// A descendant that left the process group, as PostgreSQL's sessions do, goes too.
func TestKillEndsDescendants(t *testing.T) {
	t.Parallel()
	p := start(t, shell(`setsid sh -c 'echo $$; sleep 60' & wait`, io.Discard))
	require.Eventually(t, func() bool { return p.Tail() != "" }, patience, time.Millisecond)
	grandchild, err := strconv.Atoi(p.Tail())
	require.NoError(t, err)
	require.True(t, Alive(grandchild))
	require.NoError(t, p.Kill())
	assert.False(t, Alive(grandchild))
	assert.False(t, Runs(grandchild, "60"))
	require.NoError(t, p.Kill(), "killing again")
}

// A child may open as many files as the system lets us, also if a shell has given us few.
func TestOpenFiles(t *testing.T) {
	t.Parallel()
	seen := filepath.Join(t.TempDir(), "seen")
	parent := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -Sn 100; exec "$0"`, os.Args[0])
	parent.Env = append(os.Environ(), parentOf+"=ulimit -Sn >"+seen+".new; ulimit -Hn >>"+seen+".new; mv "+seen+".new "+seen)
	require.NoError(t, parent.Start())
	defer func() { _ = parent.Process.Kill(); _ = parent.Wait() }()
	require.Eventually(t, func() bool { _, err := os.Stat(seen); return err == nil }, patience, 10*time.Millisecond)
	text, err := os.ReadFile(seen)
	require.NoError(t, err)
	soft, hard, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if most, err := strconv.Atoi(hard); err == nil && most < MaxOpenFiles { // else "unlimited", or more
		assert.Equal(t, hard, soft)
	} else {
		assert.Equal(t, strconv.Itoa(MaxOpenFiles), soft)
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	cfg := shell("", io.Discard)
	cfg.Args = []string{"-c", "sleep 60; :", "the-argument"}
	p := start(t, cfg)
	// For a moment after it has started, a process has no arguments.
	require.Eventually(t, func() bool { return Runs(p.Pid(), "the-argument") }, patience, time.Millisecond)
	assert.False(t, Runs(p.Pid(), "the-argument-of-another"))
	require.NoError(t, p.Kill())
	assert.False(t, Runs(p.Pid(), "the-argument"))
}

// However we die, the child is told. That it is told at once, by the kernel, and
// not by our own clean-up, shows in our being killed.
func TestChildEndsWithItsParent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mark, ready := filepath.Join(dir, "told"), filepath.Join(dir, "ready")
	script := fmt.Sprintf(`trap "touch %s; exit" TERM; touch %s; while :; do sleep 0.01; done`, mark, ready)
	parent := exec.CommandContext(t.Context(), os.Args[0])
	parent.Env = append(os.Environ(), parentOf+"="+script)
	output, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	var pid int
	_, err = fmt.Fscan(output, &pid)
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := os.Stat(ready); return err == nil }, patience, 5*time.Millisecond)
	require.True(t, Alive(pid))
	require.NoFileExists(t, mark)
	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait() // "signal: killed"
	require.Eventually(t, func() bool { return !Alive(pid) }, patience, 5*time.Millisecond)
	assert.FileExists(t, mark)
}
