package doctor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func networkChecks() []Check {
	return []Check{{
		"network-listeners", "Network Policies", "on which addresses the mesh's ports listen, and what else its processes listen on beyond loopback",
		"restart the mesh: all but 8883, 8443, 9001 and 8000 is on loopback, and these are where --host says", networkListeners,
	}}
}

// networkListeners compares the kernel's tables of sockets with what is documented.
func networkListeners(_ context.Context, m *Mesh) Finding {
	own, err := socketsOf(m.PID)
	if err != nil {
		return notChecked("%v", err)
	}
	var problems []string
	found := 0
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		sockets, err := listening(table)
		if err != nil {
			continue // no IPv6, or no Linux
		}
		for _, s := range sockets {
			documented := slices.Contains(m.Ports.public(), s.Port) || slices.Contains(m.Ports.private(), s.Port)
			if documented || own[s.inode] {
				found++
				problems = append(problems, m.misplaced(s)...)
			}
		}
	}
	if found == 0 {
		return notChecked("no such socket is on this machine: look where the servers are")
	}
	return verdict(problems, "%d sockets, where they belong", found)
}

// misplaced is empty for a socket that is where it belongs.
func (m *Mesh) misplaced(s socket) []string {
	public := net.ParseIP(m.Public)
	switch {
	case s.IP.IsLoopback():
	case !slices.Contains(m.Ports.public(), s.Port):
		return []string{fmt.Sprintf("port %d listens on %s, not on loopback", s.Port, s.IP)}
	case public != nil && !public.Equal(s.IP) && !public.IsUnspecified():
		return []string{fmt.Sprintf("port %d listens on %s, not on %s", s.Port, s.IP, m.Public)}
	}
	return nil
}

// socketsOf are the inodes of the sockets of a process and those that it started.
func socketsOf(pid int) (map[string]bool, error) {
	family, err := descendants(pid)
	if err != nil {
		return nil, err
	}
	inodes := map[string]bool{}
	for _, member := range family {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", member))
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if target, err := os.Readlink(file); err == nil && strings.HasPrefix(target, "socket:[") {
				inodes[strings.Trim(target, "socket:[]")] = true
			}
		}
	}
	return inodes, nil
}

// descendants are a process and all that it started.
func descendants(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		text, err := os.ReadFile(path) //nolint:gosec // of /proc
		if err != nil {
			continue // it has ended
		}
		// The name is in parentheses and may hold any character.
		end := strings.LastIndexByte(string(text), ')')
		var child, parent int
		var state string
		if _, err := fmt.Sscan(string(text), &child); err != nil || end < 0 {
			continue
		}
		if _, err := fmt.Sscan(string(text[end+1:]), &state, &parent); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	family := []int{pid}
	for i := 0; i < len(family); i++ {
		family = append(family, children[family[i]]...)
	}
	return family, nil
}
