package main

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// module has one package for each way in which tests can end.
var module = map[string]string{
	"go.mod":           "module example.org/m\n\ngo 1.26\n",
	"good/a_test.go":   "package good\n\nimport \"testing\"\n\nfunc TestGood(t *testing.T) { t.Log(\"not printed\") }\n",
	"empty/a.go":       "package empty\n",
	"broken/a_test.go": "package broken\n\nfunc oops() int { return \"\" }\n",
	"skip/a_test.go": `package skip

import "testing"

func TestA(t *testing.T) { t.Log("a log"); t.Skip("the server is missing:\n\tinstall it") }
func TestB(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skipf("only %s may", "root") }) }
func TestC(t *testing.T) { t.SkipNow() }
`,
	"fail/a_test.go": `package fail

import (
	"fmt"
	"testing"
)

func TestGood(t *testing.T) { t.Log("not printed") }
func TestBad(t *testing.T) {
	fmt.Fprintln(t.Output(), "time=2026-11-30T10:00:00Z level=INFO msg=routine")
	fmt.Fprintln(t.Output(), "time=2026-11-30T10:00:00Z level=WARN msg=trouble")
	t.Error("first fault")
	t.Run("sub", func(t *testing.T) { t.Error("second fault") })
	t.Run("good", func(t *testing.T) { t.Log("not printed") })
}
`,
	"flaky/a_test.go": `package flaky

import "testing"

var runs int

func TestFlaky(t *testing.T) {
	t.Run("sub", func(t *testing.T) {
		if runs++; runs == 2 {
			t.Fail()
		}
	})
}
`,
	"panics/a_test.go": `package panics

import "testing"

func TestParallel(t *testing.T) { t.Parallel() }
func TestPanics(t *testing.T) { panic("out of order") }
`,
	"exits/a_test.go": `package exits

import (
	"fmt"
	"os"
	"testing"
)

func TestGood(t *testing.T) {}
func TestMain(m *testing.M) { m.Run(); fmt.Println("a goroutine is left"); os.Exit(1) }
`,
	"races/a_test.go": `package races

import (
	"fmt"
	"os"
	"testing"
)

func TestGood(t *testing.T) {
	t.Run("sub", func(t *testing.T) { fmt.Println("WARNING: DATA RACE\nof another goroutine") })
}
func TestMain(m *testing.M) { m.Run(); os.Exit(66) }
`,
}

// gotest runs the packages and returns the exit code and the output, without times.
func gotest(t *testing.T, args ...string) (int, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range module {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	t.Setenv("GOWORK", "off")
	var out strings.Builder
	code, err := run(&out, args)
	if err != nil {
		t.Error(err)
	}
	return code, regexp.MustCompile(`\d+\.\d+s`).ReplaceAllString(out.String(), "0s")
}

func TestSkippedTestsAreListed(t *testing.T) {
	code, out := gotest(t, "./good", "./skip", "./empty")
	for _, line := range []string{
		"ok  \texample.org/m/good\t0s", "?   \texample.org/m/empty\t[no test files]", "ok  \texample.org/m/skip\t0s",
	} {
		if !strings.Contains(out, line+"\n") {
			t.Errorf("no line %q in:\n%s", line, out)
		}
	}
	const list = `
SKIPPED TestA in example.org/m/skip (the server is missing: install it)
SKIPPED TestB/sub in example.org/m/skip (only root may)
SKIPPED TestC in example.org/m/skip (no reason given)
`
	if code != 0 || !strings.HasSuffix(out, list) || strings.Contains(out, "not printed") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if _, out := gotest(t, "./good"); out != "ok  \texample.org/m/good\t0s\n\nno test was skipped\n" {
		t.Error(out)
	}
}

func TestFailures(t *testing.T) {
	code, out := gotest(t, "./good", "./fail", "./broken", "./panics", "./exits", "./races", "./none")
	if code != 1 || strings.Contains(out, "not printed") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	const want = `--- FAIL: TestBad (0s)
    time=2026-11-30T10:00:00Z level=WARN msg=trouble
    a_test.go:12: first fault
    --- FAIL: TestBad/sub (0s)
        a_test.go:13: second fault
FAIL
FAIL	example.org/m/fail	0s
`
	for _, want := range []string{
		want, "ok  \texample.org/m/good",
		"cannot use \"\"", "FAIL\texample.org/m/broken [build failed]",
		"--- FAIL: TestPanics", "panic: out of order", "FAIL\texample.org/m/panics",
		"a goroutine is left", "FAIL\texample.org/m/exits",
		"\nWARNING: DATA RACE\nof another goroutine", "FAIL\texample.org/m/races",
		"FAIL\t./none [setup failed]",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if code, _ := gotest(t, "-count=many", "./good"); code != 2 {
		t.Errorf("exit code %d, want go test's", code)
	}
}

// A test that fails once in three runs has failed.
func TestCount(t *testing.T) {
	code, out := gotest(t, "-count=3", "./flaky")
	if code != 1 || strings.Count(out, "--- FAIL: TestFlaky (0s)\n    --- FAIL: TestFlaky/sub (0s)\n") != 1 || strings.Count(out, "FAIL: ") != 2 {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestRan(t *testing.T) {
	if _, out := gotest(t, "-ran", "./skip", "./good"); !strings.Contains(out, "--- PASS: TestGood (0s)\nok ") || !strings.Contains(out, "--- PASS: TestB (0s)\nok ") {
		t.Error(out)
	}
}

func TestVerbose(t *testing.T) {
	if code, out := gotest(t, "-v", "./good"); code != 0 || !strings.Contains(out, "=== RUN   TestGood\n    a_test.go:5: not printed\n--- PASS: TestGood") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("the disk is full") }

// What cannot be printed cannot be a success.
func TestOutputLost(t *testing.T) {
	gotest(t, "./good") // writes the module
	if code, err := run(full{}, []string{"./good"}); err == nil && code == 0 {
		t.Error("success without output")
	}
}

// The slowest tests are listed, without subtests and quick ones.
func TestSlow(t *testing.T) {
	var out strings.Builder
	r := &report{out: bufio.NewWriter(&out), running: map[string][]*test{}}
	const events = `{"Action":"pass","Package":"m/a","Test":"TestQuick","Elapsed":19}
{"Action":"pass","Package":"m/a","Test":"TestLong/sub","Elapsed":40}
{"Action":"pass","Package":"m/a","Test":"TestLong","Elapsed":40.4}
{"Action":"fail","Package":"m/b","Test":"TestLonger","Elapsed":100}
`
	if err := errors.Join(r.read(strings.NewReader(events)), r.finish()); err != nil {
		t.Error(err)
	}
	if want := "\n   100 s TestLonger in m/b\n    40 s TestLong in m/a\nno test was skipped\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}
