package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
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
	apartKind = "F2MESH_TEST_SERVER" // unlimited or strict
	apartDir  = "F2MESH_TEST_DIR"    // has the certificate
)

// serveApart prints its address, serves until its input ends, and prints the most heap that it
// had, in bytes.
func serveApart(kind, dir string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local port
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(listener.Addr())
	serve := map[string]serveFunc{"unlimited": unlimited, "strict": strict}[kind]
	go func() { _ = serve(context.Background(), listener, serverTLS(dir), answer) }()
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(ended) }()
	for peak := uint64(0); ; {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		peak = max(peak, now.HeapInuse)
		select {
		case <-ended:
			fmt.Println(peak)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// unlimited is net/http as it is.
func unlimited(_ context.Context, listener net.Listener, config *tls.Config, handler http.Handler) error {
	return (&http.Server{Handler: handler, TLSConfig: config}).ServeTLS(listener, "", "")
}

// TestMemory: 230 headers of 1 MB at once, which were the end of a container of 128 MB.
func TestMemory(t *testing.T) { //nolint:paralleltest // with others beside them the attackers are too slow
	unbounded, bounded := underAttack(t, "unlimited"), underAttack(t, "strict")
	t.Logf("at most %d MiB without limits, %d MiB with them", unbounded>>20, bounded>>20)
	assert.Greater(t, unbounded, 48<<20, "the control")
	assert.Less(t, bounded, unbounded/2)
}

// underAttack returns the most heap that a server had, in bytes.
func underAttack(t *testing.T, kind string) (peak int) {
	t.Helper()
	dir := t.TempDir()
	victim := newVictim(t, dir)
	server := exec.CommandContext(t.Context(), os.Args[0])
	server.Env = append(os.Environ(), apartKind+"="+kind, apartDir+"="+dir)
	server.Stderr = os.Stderr
	input, err := server.StdinPipe()
	require.NoError(t, err)
	pipe, err := server.StdoutPipe()
	require.NoError(t, err)
	output := bufio.NewReader(pipe)
	require.NoError(t, server.Start())
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	address, err := output.ReadString('\n')
	require.NoError(t, err)
	victim.Address = strings.TrimSpace(address)

	var attack hostile.Attack
	for _, a := range hostile.Attacks(victim.Path) {
		if a.Name == "large header" {
			attack = a
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var attackers sync.WaitGroup
	for i := range 230 {
		from := victim
		from.From = net.IPv4(127, 0, 1, byte(1+i%8)).String()
		attackers.Go(func() { _, _ = attack.Do(ctx, from) })
	}
	attackers.Wait()
	require.NoError(t, input.Close())
	_, err = fmt.Fscan(output, &peak)
	require.NoError(t, err)
	return peak
}
