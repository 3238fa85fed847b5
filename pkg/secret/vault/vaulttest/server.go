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
	"os/exec"
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
	key   string // unseals a file server; "" of a dev server

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
		path := filepath.Join(dir, "server.hcl")
		text := fmt.Sprintf("storage \"file\" {\n  path = %q\n}\nlistener \"tcp\" {\n  address = %q\n  tls_disable = true\n}\n"+
			"api_addr = \"http://%s\"\ndisable_mlock = true\nui = false\n", filepath.Join(dir, "data"), address, address)
		require.NoError(tb, os.WriteFile(path, []byte(text), 0o600))
		return []string{"server", "-config=" + path}, nil
	}, "")
	answer, err := s.API().Sys().InitWithContext(tb.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	require.NoError(tb, err)
	s.Root, s.key = secret.NewValue(answer.RootToken, "test", ""), answer.Keys[0]
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
	require.NoError(s.tb, s.API().Sys().SealWithContext(s.tb.Context()))
}

// Unseal opens a file server that is sealed, and waits until it answers.
func (s *Server) Unseal() {
	s.tb.Helper()
	_, err := s.API().Sys().UnsealWithContext(s.tb.Context(), s.key)
	require.NoError(s.tb, err)
	require.NoError(s.tb, s.wait(s.tb.Context(), s.process, func(code int) bool { return code == http.StatusOK }))
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
	require.NoError(s.tb, s.wait(s.tb.Context(), p, func(code int) bool { return code != 0 }))
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
	program, err := find()
	if err != nil {
		accounttest.SkipMissing(tb, err)
	}
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
		err = s.wait(tb.Context(), s.process, func(code int) bool { return code != 0 })
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

// wait polls the server's health until its status is as wanted.
func (s *Server) wait(ctx context.Context, p *process.Process, wanted func(code int) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Addr+"/v1/sys/health", nil)
		if err != nil {
			return err
		}
		request.Close = true
		code := 0
		if answer, err := http.DefaultClient.Do(request); err == nil {
			code = answer.StatusCode
			_ = answer.Body.Close()
		}
		if wanted(code) {
			return nil
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

// find names the binary to run.
func find() (string, error) {
	if program, err := exec.LookPath("vault"); err == nil {
		return program, nil
	}
	dir, err := os.Getwd()
	for ; err == nil && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		program := filepath.Join(dir, "bin", "tools", "vault")
		if info, err := os.Stat(program); err == nil && info.Mode()&0o100 != 0 {
			return program, nil
		}
	}
	return "", errors.New("vault is not on PATH: install it (https://developer.hashicorp.com/vault/install), " +
		"or build it with `./task vault:build`, which takes some minutes the first time")
}
