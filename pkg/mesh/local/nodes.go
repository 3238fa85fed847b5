package local

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
	"github.com/f2mesh/f2mesh/pkg/server/supervisor"
)

// NodeCommand is the hidden command that runs one of several NATS servers.
type NodeCommand struct {
	Dir string `arg:"" type:"existingdir" help:"The server's directory."`
}

// Run runs the server until it is stopped.
func (c *NodeCommand) Run(ctx context.Context, log *slog.Logger) error {
	return natsserver.Serve(ctx, c.Dir, log)
}

// nodesFile is in the state directory of a mesh with several NATS servers: how many.
const nodesFile = "nodes"

// addNATS adds the NATS server to the parts, or all of a cluster's.
func (m *Parts) addNATS() error {
	before := 0
	if text, err := os.ReadFile(m.State.Path(nodesFile)); err == nil {
		before, _ = strconv.Atoi(string(text))
	} else if mesh.Exists(m.State.Path(PartNATS, "streams")) {
		before = 1
	}
	n := cmp.Or(m.Cfg.Nodes, before, 1)
	switch {
	case n != 1 && n != 3:
		return fmt.Errorf("--nodes must be 1 or 3, not %d", n)
	case before != 0 && n != before:
		// A server that enters a cluster deletes the streams that it had alone, and one that
		// leaves it has only those that it led.
		return fmt.Errorf("this state directory has %d NATS servers, and --nodes says %d: the number cannot change; choose another --state-dir", before, n)
	case n == 1:
		m.Add(PartNATS, m.runNATS)
		return nil
	}
	m.Cfg.Sizes.Replicas = cmp.Or(m.Cfg.Sizes.Replicas, n)
	if err := os.WriteFile(m.State.Path(nodesFile), []byte(strconv.Itoa(n)), 0o600); err != nil {
		return fmt.Errorf("noting the number of NATS servers: %w", err)
	}
	cert, key := m.routePair()
	if err := m.Authority.IssuePeer(cert, key, []string{m.Cfg.Host}); err != nil {
		return err
	}
	m.Cfg.Ports.Nodes = append(m.Cfg.Ports.Nodes, make([]int, n)...)[:n-1]
	routes := make([]string, n)
	for i := range n {
		number, err := port.Pick(m.Cfg.Host, 0)
		if err != nil {
			return err
		}
		routes[i] = m.Address(number)
		client := &m.Cfg.Ports.NATS
		if i > 0 {
			client = &m.Cfg.Ports.Nodes[i-1]
		}
		if *client, err = port.Pick(m.Cfg.Host, *client); err != nil {
			return err
		}
	}
	for i := range n {
		m.Add(mesh.NATSNode(i), m.runNode(i, routes))
	}
	return nil
}

// routePair is the certificate of the routes between NATS servers, and its key.
func (m *Parts) routePair() (certFile, keyFile string) {
	cert, _ := m.ServerPair()
	return filepath.Join(filepath.Dir(cert), "route.crt"), filepath.Join(filepath.Dir(cert), "route.key")
}

// runNode is a part that runs one server of a cluster as a process of its own. The last one
// sets up the streams, which takes most of the servers.
func (m *Parts) runNode(i int, routes []string) supervisor.Run {
	return func(ctx context.Context, ready func()) error {
		cfg, err := m.natsServer(ctx, i)
		if err != nil {
			return err
		}
		cert, key := m.routePair()
		cfg.Cluster = &natsserver.Member{
			Name: "f2mesh-" + strconv.Itoa(i+1), Listen: routes[i], Routes: routes, CertFile: cert, KeyFile: key, CAFile: cfg.CAFile,
		}
		if err := cfg.WriteFiles(); err != nil {
			return err
		}
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("finding this program: %w", err)
		}
		p, err := process.Start(process.Config{
			Path: program, Args: []string{"node", cfg.Dir}, Dir: "/", Env: os.Environ(), Parse: parseNode, Log: cfg.Log,
		})
		if err != nil {
			return err
		}
		stop := func(ctx context.Context) error { return p.Stop(ctx, syscall.SIGTERM) }
		if err := awaitPort(ctx, m.Address(cfg.Port), p.Done()); err == nil && i == len(routes)-1 {
			if err := m.setUpStreams(ctx); err != nil {
				_ = stopped(ctx, stop)
				return err
			}
		}
		ready()
		return whileRunning(ctx, p.Done(), p.Err, stop)
	}
}

// awaitPort returns once somebody listens, or the process has ended.
func awaitPort(ctx context.Context, address string, ended <-chan struct{}) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// parseNode has the level of a node's line, which is a log line itself.
func parseNode(line string) process.LogLine {
	level := slog.LevelDebug
	for _, l := range []slog.Level{slog.LevelWarn, slog.LevelError} {
		if strings.Contains(line, l.String()) {
			level = l
		}
	}
	return process.LogLine{Level: level, Text: line}
}
