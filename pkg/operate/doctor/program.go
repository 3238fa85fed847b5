package doctor

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"time"
)

func vulnerabilities(ctx context.Context, t *Target) Finding {
	const found = 3 // govulncheck's exit status when it found something
	need(len(t.Vulncheck) > 0, "govulncheck is not here: run `task vuln` in a clone")
	cmd := exec.CommandContext(ctx, t.Vulncheck[0], t.Vulncheck[1:]...) //nolint:gosec // the caller's own program
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	if exit, isExit := errors.AsType[*exec.ExitError](err); isExit && exit.ExitCode() == found {
		return failed("%s", lastLines(string(output), 3))
	}
	need(err == nil, "govulncheck failed: %v: %s", err, lastLines(string(output), 1))
	return ok("govulncheck found no vulnerability")
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " ")
}
