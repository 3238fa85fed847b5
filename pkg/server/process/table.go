package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// descendants lists the processes below pid, from /proc.
func descendants(pid int) []int {
	children := make(map[int][]int)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	for _, path := range stats {
		if child, parent, _, ok := readStat(path); ok {
			children[parent] = append(children[parent], child)
		}
	}
	var found []int
	queue := children[pid]
	for len(queue) > 0 {
		next := queue[0]
		found = append(found, next)
		queue = append(queue[1:], children[next]...)
	}
	return found
}

// readStat takes process id, parent and state out of a /proc/<pid>/stat. The
// program's name stands in brackets before the state and may hold anything.
func readStat(path string) (pid, parent int, state byte, ok bool) {
	text, err := os.ReadFile(path) //nolint:gosec // a path under /proc
	if err != nil {
		return 0, 0, 0, false
	}
	pid, err = strconv.Atoi(filepath.Base(filepath.Dir(path)))
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if err != nil || len(fields) < 2 {
		return 0, 0, 0, false
	}
	parent, err = strconv.Atoi(string(fields[1]))
	return pid, parent, fields[0][0], err == nil
}

// Alive reports whether the process runs. A zombie, which has exited and only
// waits for its parent to notice, does not.
func Alive(pid int) bool {
	_, _, state, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return ok && state != 'Z' && state != 'X'
}

// Runs reports whether the process runs and was started with this argument. A
// number from a pid file alone proves nothing: it may be another program's by now.
func Runs(pid int, argument string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !Alive(pid) {
		return false
	}
	for given := range bytes.SplitSeq(text, []byte{0}) {
		if string(given) == argument {
			return true
		}
	}
	return false
}

// waitHalted waits until the process has taken in a SIGSTOP, or is gone. One that
// the kernel holds in a system call may be late, so the wait has an end.
func waitHalted(pid int) {
	const patience = time.Second
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, _, state, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if !ok || bytes.IndexByte([]byte("TtZX"), state) >= 0 {
			return
		}
	}
}

// waitGone waits until none of the killed processes runs.
func waitGone(pids []int) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	for _, pid := range pids {
		for Alive(pid) {
			if time.Now().After(deadline) {
				return fmt.Errorf("killing process %d: still there after %s", pid, patience)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
