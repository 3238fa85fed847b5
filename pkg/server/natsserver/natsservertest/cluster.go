package natsservertest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// nodeVariable has a test's program be a server of a cluster.
const nodeVariable = "F2MESH_TEST_NODE"

// RunNode is to be called first in TestMain of a package that uses StartCluster: a server of a
// cluster is a process of its own, and runs the test's program.
func RunNode() {
	dir := os.Getenv(nodeVariable)
	if dir == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := natsserver.Serve(ctx, dir, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Node is a server of ThreeServers.
type Node struct {
	natsserver.Config
	process *process.Process
}

// ThreeServers is three servers, each a process with a folder of its own.
type ThreeServers struct {
	URL, CAFile string
	Nodes       []*Node
}

// StartCluster starts three servers, which end with the test.
func StartCluster(tb testing.TB) *ThreeServers {
	tb.Helper()
	base := Config(tb)
	authority, err := identity.OpenAuthority(filepath.Dir(base.CAFile))
	require.NoError(tb, err)
	certificate, key := filepath.Join(filepath.Dir(base.CertFile), "route.crt"), filepath.Join(filepath.Dir(base.CertFile), "route.key")
	require.NoError(tb, authority.IssuePeer(certificate, key, []string{"127.0.0.1"}))
	c := &ThreeServers{CAFile: base.CAFile}
	var routes, urls []string
	for i := range 3 {
		cfg := base
		cfg.Dir = base.Dir + strconv.Itoa(i+1)
		cfg.Port = freePort(tb)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(freePort(tb)))
		routes = append(routes, address)
		urls = append(urls, "tls://"+net.JoinHostPort("127.0.0.1", strconv.Itoa(cfg.Port)))
		cfg.Cluster = &natsserver.Member{Name: "f2mesh-" + strconv.Itoa(i+1), Listen: address, CertFile: certificate, KeyFile: key, CAFile: base.CAFile}
		c.Nodes = append(c.Nodes, &Node{Config: cfg})
	}
	c.URL = strings.Join(urls, ",")
	for _, n := range c.Nodes {
		n.Cluster.Routes = routes
		require.NoError(tb, n.WriteFiles())
		n.Start(tb)
		tb.Cleanup(func() { _ = n.process.Kill() })
	}
	return c
}

func freePort(tb testing.TB) int {
	tb.Helper()
	free, err := port.Pick("127.0.0.1", 0)
	require.NoError(tb, err)
	return free
}

// Named is the server of a name.
func (c *ThreeServers) Named(name string) *Node {
	i := slices.IndexFunc(c.Nodes, func(n *Node) bool { return n.Cluster.Name == name })
	return c.Nodes[max(i, 0)]
}

// Start starts the server's process.
func (n *Node) Start(tb testing.TB) {
	tb.Helper()
	var err error
	n.process, err = process.Start(process.Config{
		Path: os.Args[0], Dir: "/", Env: append(os.Environ(), nodeVariable+"="+n.Dir), Orphaned: syscall.SIGKILL,
		Log: n.Log.With("node", n.Cluster.Name),
	})
	require.NoError(tb, err)
}

// Kill ends the process as a crash does.
func (n *Node) Kill(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, n.process.Kill())
}

// Pause halts the process for a time.
func (n *Node) Pause(tb testing.TB, d time.Duration) {
	tb.Helper()
	require.NoError(tb, n.process.Signal(syscall.SIGSTOP))
	time.Sleep(d)
	require.NoError(tb, n.process.Signal(syscall.SIGCONT))
}

// Stop stops the process in order.
func (n *Node) Stop(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), time.Minute)
	defer cancel()
	require.NoError(tb, n.process.Stop(ctx, syscall.SIGTERM))
}

// Empty removes all that the server has stored.
func (n *Node) Empty(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, os.RemoveAll(filepath.Join(n.Dir, "streams")))
}

// Connect connects to any of the servers as a user.
func (c *ThreeServers) Connect(tb testing.TB, user string) *nats.Conn {
	tb.Helper()
	nc, err := nats.Connect(c.URL, nats.RootCAs(c.CAFile), nats.UserInfo(user, Password(user)),
		nats.CustomInboxPrefix(natsserver.InboxPrefix(user)), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1))
	require.NoError(tb, err)
	tb.Cleanup(func() { Close(nc) })
	return nc
}
