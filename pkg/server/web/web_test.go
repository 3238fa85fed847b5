package web_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
	"github.com/f2mesh/f2mesh/pkg/server/web"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(apartKind); kind != "" {
		serveApart(kind, os.Getenv(apartDir))
		return
	}
	goleak.VerifyTestMain(m)
}

// bench is a server under attack.
type bench struct {
	hostile.Victim
	stop func()
}

type serveFunc = func(context.Context, net.Listener, *tls.Config, http.Handler) error

// start has serve serve over TLS.
func start(t *testing.T, serve serveFunc) bench {
	t.Helper()
	dir := t.TempDir()
	b := bench{Victim: newVictim(t, dir)}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.Address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, serverTLS(dir), answer) }()
	b.stop = sync.OnceFunc(func() { cancel(); assert.NoError(t, <-served) })
	t.Cleanup(b.stop)
	return b
}

// newVictim issues a certificate in dir, and returns a server that has it, without its address.
func newVictim(t *testing.T, dir string) hostile.Victim {
	t.Helper()
	authority, err := identity.OpenAuthority(filepath.Join(dir, "pki"))
	require.NoError(t, err)
	pair := certificateIn(dir)
	require.NoError(t, authority.IssueServer(pair.CertFile, pair.KeyFile, []string{"127.0.0.1"}))
	text, err := os.ReadFile(authority.CAFile())
	require.NoError(t, err)
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(text))
	return hostile.Victim{Path: "/status", TLS: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}}
}

func certificateIn(dir string) *web.Pair {
	return &web.Pair{CertFile: filepath.Join(dir, "server.crt"), KeyFile: filepath.Join(dir, "server.key")}
}

func serverTLS(dir string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificateIn(dir).Get}
}

var answer http.HandlerFunc = func(w http.ResponseWriter, r *http.Request) {
	if _, _, guessed := r.BasicAuth(); guessed {
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			w.WriteHeader(http.StatusUnauthorized)
		} else {
			w.WriteHeader(http.StatusBadRequest)
		}
		return
	}
	_, _ = io.WriteString(w, "ok")
}

func strict(ctx context.Context, listener net.Listener, config *tls.Config, handler http.Handler) error {
	return web.Serve(ctx, listener, config, handler, slog.New(slog.DiscardHandler))
}

// lax is net/http with what the health API had set of it before.
func lax(ctx context.Context, listener net.Listener, config *tls.Config, handler http.Handler) error {
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.ServeTLS(listener, "", "")
	return nil
}

// good is a request as it should be, from another address than the attacks'.
func (b bench) good() (int, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: b.TLS.Clone(), DialContext: dialer.DialContext,
	}}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+b.Address+"/status", http.NoBody)
	if err != nil {
		return 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

// TestAttacks: no attack holds a connection, or is answered as a request.
func TestAttacks(t *testing.T) {
	t.Parallel()
	b := start(t, strict)
	for _, a := range hostile.Attacks(b.Path) {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			out, err := a.Do(ctx, b.Victim)
			require.NoError(t, err)
			assert.NotEqual(t, http.StatusOK, out.Status)
			switch a.Name {
			case "large header", "many headers":
				assert.Contains(t, []int{0, http.StatusRequestHeaderFieldsTooLarge}, out.Status)
				assert.Less(t, out.Held, 4*time.Second, "refused at once, and not when its time was over")
			case "large body":
				assert.Contains(t, []int{0, http.StatusBadRequest}, out.Status)
			case "wrong password":
				assert.Equal(t, http.StatusUnauthorized, out.Status)
			}
			status, err := b.good()
			require.NoError(t, err)
			assert.Equal(t, http.StatusOK, status, "the control")
		})
	}
}

// TestAttacksElsewhere is the control: they succeed with a server that has no limits.
func TestAttacksElsewhere(t *testing.T) {
	t.Parallel()
	b := start(t, lax)
	var attacks sync.WaitGroup
	for _, a := range hostile.Attacks(b.Path) {
		attacks.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := a.Do(ctx, b.Victim)
			switch a.Name {
			case "slow body":
				assert.ErrorIs(t, err, hostile.ErrHeld) //nolint:testifylint // not the test's goroutine
			case "large header", "many headers":
				assert.Greater(t, out.Held, 4*time.Second, "it is kept until its time is over")
			case "large body":
				assert.Equal(t, http.StatusUnauthorized, out.Status, "it was read")
			}
		})
	}
	attacks.Wait()
	closed, end, err := hostile.Open(t.Context(), b.Victim, web.MaxConnections, time.Second)
	require.NoError(t, err)
	end()
	assert.Zero(t, closed, "all of them for one source")
}

// TestConnectionsOfOneSource: one machine that opens connections and asks nothing
// keeps no other out.
func TestConnectionsOfOneSource(t *testing.T) {
	t.Parallel()
	b := start(t, strict)
	closed, end, err := hostile.Open(t.Context(), b.Victim, web.MaxConnections, time.Second)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, closed, web.MaxConnections-web.MaxOfSource)
	status, err := b.good()
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, status, "another source")
	end()
	require.Eventually(t, func() bool {
		n, end, err := hostile.Open(t.Context(), b.Victim, 1, 100*time.Millisecond)
		if err != nil {
			return false
		}
		end()
		return n == 0
	}, time.Minute, 50*time.Millisecond, "those that ended do not count")
}

func TestServeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a local port
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	go func() { done <- web.Serve(ctx, listener, nil, answer, slog.New(slog.DiscardHandler)) }()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+listener.Addr().String()+"/livez", http.NoBody)
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	require.NoError(t, err)
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	assert.Equal(t, "ok\n", string(body))
	cancel()
	require.NoError(t, <-done)
	require.Error(t, web.Serve(t.Context(), listener, nil, nil, slog.New(slog.DiscardHandler)), "the listener is closed")
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	b := web.NewBuckets(0.001, 1)
	allow := func(address string) bool { return b.Allow(web.Network(address)) }
	assert.False(t, b.Spent("192.0.2.1"))
	assert.True(t, allow("192.0.2.1:1000"))
	assert.True(t, b.Spent("192.0.2.1"))
	assert.False(t, allow("192.0.2.1:1001"))
	assert.False(t, allow("[::ffff:192.0.2.1]:1002"))
	assert.True(t, allow("192.0.2.2:1000"))
	assert.True(t, allow("[2001:db8::1]:1000"))
	assert.False(t, allow("[2001:db8::ffff:1]:1000"), "of the same /64")
	assert.True(t, allow("[2001:db8:0:1::1]:1000"))
}

func TestCounts(t *testing.T) {
	t.Parallel()
	c := web.Tally{}
	for _, name := range []string{"b", "a", "c", "c", "d", "e", "f", "g"} {
		c.Add(name)
	}
	assert.Equal(t, "c (2), a (1), b (1), d (1), e (1), 2 others", c.String())
}
