package compose

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

// publishVariable holds what enterPublisher publishes: FROM->TO, with commas.
const publishVariable = "F2MESH_COMPOSE_PUBLISH"

// enterPublisher is the engine's part before the containers: who connects to a
// published port gets to the container.
func enterPublisher() {
	for pair := range strings.SplitSeq(os.Getenv(publishVariable), ",") {
		from, to, _ := strings.Cut(pair, "->")
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", from)
		if err != nil {
			panic(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					panic(err)
				}
				go forward(conn, to)
			}
		}()
	}
	select {}
}

func forward(conn net.Conn, to string) {
	defer func() { _ = conn.Close() }()
	inner, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = inner.Close() }()
	go func() {
		_, _ = io.Copy(inner, conn)
		_ = inner.Close()
	}()
	_, _ = io.Copy(conn, inner)
}

// publish opens the ports of a model on the engine's own side of the networks, in front
// of the containers that run.
func (e *engine) publish(project *types.Project) {
	e.t.Helper()
	e.ip("link", "set", "lo", "up")
	for name, network := range e.project.Networks {
		subnet := netip.MustParsePrefix(network.Ipam.Config[0].Subnet)
		e.ip("addr", "add", subnet.Addr().Next().String()+"/24", "dev", name)
	}
	var pairs []string
	for name, s := range e.project.Services {
		for network := range s.Networks {
			for _, p := range project.Services[name].Ports {
				pairs = append(pairs, net.JoinHostPort(p.HostIP, p.Published)+"->"+netip.AddrPortFrom(e.address(name, network), uint16(p.Target)).String())
			}
			break
		}
	}
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe")
	cmd.Env = []string{publishVariable + "=" + strings.Join(pairs, ",")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(e.t, cmd.Start())
	e.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}
