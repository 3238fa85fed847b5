// Package port chooses TCP ports for servers that cannot choose one themselves.
//
// A port that the kernel hands out for ":0" lies in the range it also takes
// outgoing connections from, so it can be gone before the server binds it, or
// while the server is stopped for a restart. Pick therefore looks below that
// range. What is left of the race (another program binds the same port between
// Pick and the server's own bind) Retry takes care of. The package holds no state.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
)

// Ports below lowest are left to servers that people know by their number.
const (
	lowest   = 20000
	attempts = 100
)

// ErrTaken means that another program bound a port before the server did.
var ErrTaken = errors.New("the port is in use")

// starts is how often Retry starts a server.
const starts = 5

// Retry starts a server that picks a free port at each start, until it does not return
// ErrTaken. A server whose ports are fixed is started once.
func Retry[S any](fixed bool, start func() (S, error)) (server S, err error) {
	for range starts {
		if server, err = start(); fixed || !errors.Is(err, ErrTaken) {
			return server, err
		}
	}
	return server, fmt.Errorf("%w, %d times", err, starts)
}

// Free reports whether host:number can be bound now.
func Free(host string, number int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(number))) //nolint:noctx // binding a local port does not block
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// Pick returns preferred when it can be bound on host, else a random free port
// from 20000 up to where the kernel's range for outgoing connections begins. A
// preferred of 0 asks for a random one at once. It is safe for concurrent use.
func Pick(host string, preferred int) (int, error) {
	if preferred != 0 && Free(host, preferred) {
		return preferred, nil
	}
	trial, err := net.Listen("tcp", net.JoinHostPort(host, "0")) //nolint:noctx // binding a local port does not block
	if err != nil {
		return 0, fmt.Errorf("is %s an address of this machine? %w", host, err)
	}
	_ = trial.Close()
	highest := ephemeralStart()
	for range attempts {
		number := lowest + rand.IntN(highest-lowest) //nolint:gosec // spreads servers over ports, guards nothing
		if Free(host, number) {
			return number, nil
		}
	}
	return 0, fmt.Errorf("picking a port on %s: none of %d tried is free", host, attempts)
}

// ephemeralStart is the first port of the kernel's range for outgoing connections.
func ephemeralStart() int {
	const linuxDefault = 32768
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return linuxDefault
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\t")
	number, err := strconv.Atoi(first)
	if err != nil || number < lowest+attempts {
		return linuxDefault
	}
	return number
}
