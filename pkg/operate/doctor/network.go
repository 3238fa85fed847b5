package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
)

func databasePorts(_ context.Context, t *Target) Finding {
	return t.checkSockets(func(port int, _ uint64) bool { return port == t.Ports.Postgres || port == t.Ports.PgBouncer })
}

// networkListeners checks the mesh's ports, and what else its processes listen on.
func networkListeners(_ context.Context, t *Target) Finding {
	own := socketsOf(t.PID)
	return t.checkSockets(func(port int, inode uint64) bool { return own[inode] || slices.Contains(t.Ports.all(), port) })
}

// checkSockets checks that sockets of the mesh listen where docs/security.md says.
func (t *Target) checkSockets(ours func(port int, inode uint64) bool) Finding {
	need(!t.Containers, "container-hardening checks which ports the containers publish")
	var problems []string
	public, found := net.ParseIP(t.Public), 0
	for _, s := range listening() {
		port := int(s.LocalPort) //nolint:gosec // of 16 bits
		if !ours(port, s.Inode) {
			continue
		}
		found++
		switch {
		case s.LocalAddr.IsLoopback():
		case !slices.Contains(t.Ports.public(), port):
			problems = append(problems, fmt.Sprintf("port %d listens on %s, not on loopback", port, s.LocalAddr))
		case public != nil && !public.Equal(s.LocalAddr) && !public.IsUnspecified():
			problems = append(problems, fmt.Sprintf("port %d listens on %s, not on %s", port, s.LocalAddr, t.Public))
		}
	}
	need(found > 0, "no such socket is on this machine: run the doctor where the servers are")
	return verdict(problems, "%d sockets, all on their documented addresses", found)
}

// listening lists all sockets of this machine that listen.
func listening() (all procfs.NetTCP) {
	const listen = 0x0A
	proc := must(procfs.NewDefaultFS())
	for _, table := range []func() (procfs.NetTCP, error){proc.NetTCP, proc.NetTCP6} { //nolint:staticcheck // deprecated because many sockets make it slow
		lines, _ := table() // none without IPv6
		for _, l := range lines {
			if l.St == listen {
				all = append(all, l)
			}
		}
	}
	return all
}

// socketsOf are the inodes of the sockets of a process and its descendants.
func socketsOf(pid int) map[uint64]bool {
	processes := map[int]procfs.Proc{}
	children := map[int][]int{}
	for _, p := range must(procfs.AllProcs()) {
		if stat, err := p.Stat(); err == nil { // else it has exited
			processes[p.PID], children[stat.PPID] = p, append(children[stat.PPID], p.PID)
		}
	}
	inodes := map[uint64]bool{}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
		files, _ := processes[family[i]].FileDescriptorTargets() // nil if it has exited
		for _, file := range files {
			var inode uint64
			if _, err := fmt.Sscanf(file, "socket:[%d]", &inode); err == nil {
				inodes[inode] = true
			}
		}
	}
	return inodes
}

func processUsers(_ context.Context, t *Target) Finding {
	need(!t.Containers, "container-hardening checks the users of containers")
	var problems []string
	for server, file := range map[string]string{
		"Mosquitto": t.path("mosquitto", "data", "mosquitto.pid"), "PostgreSQL": t.path("postgres", "data", "postmaster.pid"),
	} {
		if runsAsRoot(runningPID(server, file)) {
			problems = append(problems, server+" runs as root")
		}
	}
	if len(problems) == 0 && runsAsRoot(t.PID) {
		return warning("f2mesh runs as root; Mosquitto and PostgreSQL run as users of their own")
	}
	return verdict(problems, "none runs as root")
}

// runningPID reads the first line of a server's PID file.
func runningPID(server, file string) int {
	text, err := os.ReadFile(file) //nolint:gosec // a PID file of the mesh
	need(err == nil, "%s does not run in this state directory: %v", server, err)
	line, _, _ := strings.Cut(string(text), "\n")
	return must(strconv.Atoi(strings.TrimSpace(line)))
}

func runsAsRoot(pid int) bool {
	return must(must(procfs.NewProc(pid)).NewStatus()).UIDs[1] == 0 // the effective user
}
