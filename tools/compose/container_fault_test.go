package compose

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/assert"
)

// docker does a command about containers, whose ids are the names of their services.
func (e *engine) docker(args []string) (a answer) {
	e.t.Helper()
	command, ids := args[0], args[1:]
	if command == "inspect" { // --format {{.State.FinishedAt}} ID
		ids = ids[2:]
	}
	if command != "cp" && command != "exec" {
		for _, name := range ids {
			if e.running[name] == nil {
				a.Err = "no such container: " + name
				return a
			}
		}
	}
	switch command {
	case "kill":
		for _, name := range ids {
			_ = e.running[name].cmd.Process.Kill()
		}
		for _, name := range ids {
			<-e.running[name].done
		}
	case "start":
		for _, name := range ids {
			e.launchAgain(name)
		}
	case "restart":
		for _, name := range ids {
			assert.True(e.t, e.stop(name), "%s does not stop in order:\n%s", name, e.running[name].log.String())
			e.launchAgain(name)
		}
	case "inspect":
		a.Out = e.running[ids[0]].endedAt.Format(time.RFC3339Nano)
	case "pause":
		a.Err = e.signal(ids[0], syscall.SIGSTOP)
	case "unpause":
		a.Err = e.signal(ids[0], syscall.SIGCONT)
	case "exec":
		s := e.running[ids[0]]
		out, err := s.inside(s.cmd.Process.Pid, nil, ids[1:]...)
		if a.Out = string(out); err != nil {
			a.Err = err.Error()
		}
	case "cp":
		a.Err = e.copyOut(args[1], args[2])
	default:
		a.Err = "unknown: " + strings.Join(args, " ")
	}
	return a
}

// launchAgain starts a container that has ended. It keeps its log.
func (e *engine) launchAgain(name string) {
	e.t.Helper()
	earlier := e.running[name].log.String()
	s := e.launch(name, "")
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	now := s.log.text.String()
	s.log.text.Reset()
	s.log.text.WriteString(earlier + now)
}

// signal sends a signal to all processes of a container, which are those of its namespace.
func (e *engine) signal(name string, signal syscall.Signal) string {
	namespace := func(pid string) string {
		link, _ := os.Readlink(filepath.Join("/proc", pid, "ns/pid"))
		return link
	}
	own := namespace(strconv.Itoa(e.running[name].cmd.Process.Pid))
	if own == "" {
		return name + " does not run"
	}
	for _, entry := range entries(e.t, "/proc") {
		if pid, err := strconv.Atoi(entry); err == nil && namespace(entry) == own {
			_ = syscall.Kill(pid, signal)
		}
	}
	return ""
}

// copyOut copies a file or a folder of a volume.
func (e *engine) copyOut(from, to string) string {
	name, path, _ := strings.Cut(from, ":")
	best := mountPoint{}
	for _, m := range e.container(name).Mounts {
		if (path == m.Target || strings.HasPrefix(path, m.Target+"/")) && len(m.Target) > len(best.Target) {
			best = m
		}
	}
	source := best.Source + strings.TrimPrefix(path, best.Target)
	if out, err := exec.CommandContext(context.Background(), "cp", "--recursive", "--preserve=mode", source, to).CombinedOutput(); err != nil {
		return string(out)
	}
	return ""
}
