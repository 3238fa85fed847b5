// Package vaulttest gives tests a real Vault: the binary on PATH, or the one that
// `./task vault:build` has built. Every Server is a process of its own on a free
// loopback port, and ends with its test.
package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// patience is for a machine that does other things too.
const patience = time.Minute

// Server is a running Vault. Its methods fail the test that it was started for.
type Server struct {
	Addr string
	Root secret.Value // the token that may everything

	tb    testing.TB
	start func() (*process.Process, error)
	key   secret.Value // unseals a file server

	mu      sync.Mutex
	process *process.Process
}

// StartDev starts Vault's dev server: in memory, unsealed, with KV version 2 at
// secret/. Where Vault is missing the test is skipped on a laptop and fails in CI.
func StartDev(tb testing.TB) *Server {
	tb.Helper()
	const root = "root-of-a-test"
	return startOnPort(tb, func(address string) (args, env []string) {
		return []string{"server", "-dev", "-dev-no-store-token", "-dev-listen-address=" + address},
			[]string{"VAULT_DEV_ROOT_TOKEN_ID=" + root}
	}, root)
}

// StartFile starts a server that keeps its data in files, and so can be sealed,
// stopped and started again. It has no secrets engine yet.
func StartFile(tb testing.TB) *Server {
	tb.Helper()
	dir := tb.TempDir()
	s := startOnPort(tb, func(address string) (args, env []string) {
		args, err := vault.OwnServer{Dir: dir, Address: address}.Configure()
		require.NoError(tb, err)
		return args, nil
	}, "")
	var err error
	s.key, s.Root, err = vault.Initialise(tb.Context(), s.Config(""))
	require.NoError(tb, err)
	s.Unseal()
	return s
}

// Config addresses the server, with logins in authDir.
func (s *Server) Config(authDir string) vault.Config {
	return vault.Config{Addr: s.Addr, Mount: "secret", AuthDir: authDir}
}

// API is the library's client, with the root's token.
func (s *Server) API() *api.Client {
	s.tb.Helper()
	cfg := api.DefaultConfig()
	require.NoError(s.tb, cfg.Error)
	cfg.Address, cfg.MaxRetries = s.Addr, 0
	client, err := api.NewClient(cfg)
	require.NoError(s.tb, err)
	s.tb.Cleanup(client.CloneConfig().HttpClient.CloseIdleConnections)
	client.SetToken(s.Root.Reveal())
	return client
}

// Seal makes the server refuse everything until Unseal.
func (s *Server) Seal() {
	s.tb.Helper()
	require.NoError(s.tb, vault.Seal(s.tb.Context(), s.Config(""), s.Root))
}

// Unseal opens a file server that is sealed, and waits until it answers.
func (s *Server) Unseal() {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
	defer cancel()
	require.NoError(s.tb, vault.Unseal(ctx, s.Config(""), s.key))
}

// Stop ends the server's process.
func (s *Server) Stop() {
	s.tb.Helper()
	require.NoError(s.tb, s.stop())
}

// Restart starts a server again that was stopped. A file server is sealed then.
func (s *Server) Restart() {
	s.tb.Helper()
	p, err := s.start()
	require.NoError(s.tb, err)
	s.mu.Lock()
	s.process = p
	s.mu.Unlock()
	require.NoError(s.tb, s.wait(s.tb.Context(), p))
}

func (s *Server) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.process.Stop(ctx, syscall.SIGTERM)
}

// startOnPort tries again on another port: somebody else may have been faster.
func startOnPort(tb testing.TB, command func(address string) (args, env []string), root string) *Server {
	tb.Helper()
	program := Program(tb)
	for range 5 {
		number, err := port.Pick("127.0.0.1", 0)
		require.NoError(tb, err)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(number))
		args, env := command(address)
		home := tb.TempDir()
		s := &Server{Addr: "http://" + address, Root: secret.NewValue(root, "test", ""), tb: tb}
		s.start = func() (*process.Process, error) {
			return process.Start(process.Config{
				Path: program, Args: args, Dir: home, Env: append(env, "HOME="+home), Log: slog.New(slog.DiscardHandler),
			})
		}
		s.process, err = s.start()
		require.NoError(tb, err)
		err = s.wait(tb.Context(), s.process)
		if err != nil && strings.Contains(s.process.Tail(), "address already in use") {
			continue
		}
		tb.Cleanup(func() { require.NoError(tb, s.stop()) })
		require.NoError(tb, err, s.process.Tail())
		return s
	}
	require.FailNow(tb, "no port for Vault")
	return nil
}

// wait polls the server's health until it answers.
func (s *Server) wait(ctx context.Context, p *process.Process) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Addr+"/v1/sys/health", nil)
		if err != nil {
			return err
		}
		request.Close = true
		if answer, err := http.DefaultClient.Do(request); err == nil {
			return answer.Body.Close()
		}
		select {
		case <-p.Done():
			return errors.New("vault has ended")
		case <-ctx.Done():
			return fmt.Errorf("waiting for Vault: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Program is the vault to run. Without one the test is skipped, as StartDev has it.
func Program(tb testing.TB) string {
	tb.Helper()
	program, missing := vault.FindProgram("")
	dir, err := os.Getwd()
	for ; missing != nil && err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if built, err := vault.FindProgram(filepath.Join(dir, "bin", "tools", "vault")); err == nil {
			return built
		}
	}
	if missing != nil {
		accounttest.SkipMissing(tb, missing)
	}
	return program
}
