// Gotest runs `go test` with its arguments. It prints what `go test` prints, a package as soon as it
// is done, and at the end the slowest tests and every skipped test with its reason, which `go test` hides
// without -v.
// Its exit code is that of `go test`. With -ran as the first argument it also lists the tests that passed.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	code, err := run(os.Stdout, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		code = cmp.Or(code, 1)
	}
	os.Exit(code)
}

// run returns the exit code of go test. It is never 0 if a package failed or if the
// output could not be read and printed completely.
func run(out io.Writer, args []string) (code int, err error) {
	r := &report{out: bufio.NewWriter(out), running: map[string][]*test{}}
	if len(args) > 0 && args[0] == "-ran" {
		r.listPassed, args = true, args[1:]
	}
	r.verbose = isVerbose(args)

	// Ctrl-C reaches go test as well, which stops the tests and then ends.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...) //nolint:gosec,noctx // the caller's own arguments; signals end it
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return 1, err
	}
	if err := cmd.Start(); err != nil {
		return 1, err
	}
	go func() {
		for s := range signals {
			if s != os.Interrupt {
				_ = cmd.Process.Signal(s)
			}
		}
	}()

	err = r.read(events)
	if err != nil {
		_, _ = io.Copy(io.Discard, events) // so that go test can end
	}
	var exit *exec.ExitError
	if waitErr := cmd.Wait(); waitErr != nil && !errors.As(waitErr, &exit) {
		return 1, errors.Join(err, waitErr)
	}
	if code = cmd.ProcessState.ExitCode(); code < 0 { // a signal ended it
		return 1, errors.Join(err, fmt.Errorf("go test: %s", cmd.ProcessState))
	}
	if code == 0 && r.failures {
		code = 1
	}
	if err == nil {
		err = r.finish()
	}
	return code, err
}

// isVerbose reports whether the caller asks for the output of tests that pass.
func isVerbose(args []string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		return slices.Contains([]string{"-v", "--v", "-v=true", "--v=true", "-test.v"}, arg)
	})
}
