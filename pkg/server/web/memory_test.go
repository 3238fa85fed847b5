package web_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
)

// Variables that make this program a server, whose memory is not the attackers'.
const (
	apartKind = "F2MESH_TEST_SERVER" // lax or strict
	apartDir  = "F2MESH_TEST_DIR"    // has the certificate
)

// serveApart prints its address and serves until it is killed.
func serveApart(kind, dir string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local port
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	serve := map[string]serveFunc{"lax": lax, "strict": strict}[kind]
	_ = serve(context.Background(), listener, serverTLS(dir), answer)
}

// TestMemory: 230 headers of 1 MB at once, which were the end of a container of 128 MB.
func TestMemory(t *testing.T) {
	t.Parallel()
	unbounded, bounded := underAttack(t, "lax"), underAttack(t, "strict")
	t.Logf("at most %d MiB without limits, %d MiB with them", unbounded>>20, bounded>>20)
	assert.Greater(t, unbounded, 128<<20, "the control")
	assert.Less(t, bounded, unbounded/2)
}

// underAttack returns the most memory that a server ever had, in bytes.
func underAttack(t *testing.T, kind string) (peak int) {
	t.Helper()
	dir := t.TempDir()
	victim := newVictim(t, dir)
	server := exec.CommandContext(t.Context(), os.Args[0])
	server.Env = append(os.Environ(), apartKind+"="+kind, apartDir+"="+dir)
	server.Stderr = os.Stderr
	output, err := server.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	address, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	victim.Address = strings.TrimSpace(address)

	var attack hostile.Attack
	for _, a := range hostile.Attacks(victim.Path) {
		if a.Name == "large header" {
			attack = a
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var attackers sync.WaitGroup
	for i := range 230 {
		from := victim
		from.From = net.IPv4(127, 0, 1, byte(1+i%8)).String()
		attackers.Go(func() { _, _ = attack.Do(ctx, from) })
	}
	attackers.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", server.Process.Pid))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(status), "VmHWM:")
	require.True(t, found)
	_, err = fmt.Sscan(text, &peak)
	require.NoError(t, err)
	return peak << 10
}
