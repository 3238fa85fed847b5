package doctor

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

// vulnerable is govulncheck's exit status when it found something.
const vulnerable = 3

func programChecks() []Check {
	return []Check{{
		"program-vulnerabilities", "Best practices: Regular Updates", "this program in Go's vulnerability database",
		"go get the fixed versions that govulncheck names, and build again", vulnerabilities,
	}}
}

func vulnerabilities(ctx context.Context, m *Mesh) Finding {
	if len(m.Vulncheck) == 0 {
		return notChecked("govulncheck is not here: run `task vuln` in a clone")
	}
	cmd := exec.CommandContext(ctx, m.Vulncheck[0], m.Vulncheck[1:]...) //nolint:gosec // the caller's own program
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return ok("govulncheck knows of none")
	case errors.As(err, &exit) && exit.ExitCode() == vulnerable:
		return failed("%s", lastLines(string(output), 3))
	}
	return notChecked("govulncheck could not find out: %v: %s", err, lastLines(string(output), 1))
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " ")
}
