// Package postgres runs a PostgreSQL cluster of our own, for `f2mesh up` and for
// tests.
//
// Start makes the cluster on first use (scram-sha-256, data checksums, UTF-8),
// writes its configuration, and returns once the superuser can log in over TLS.
// Durability is PostgreSQL's default. PostgreSQL refuses to run as root: as root
// it runs as the account postgres. It is a child process that shuts down in
// order when we die. The package makes no databases or tables, and does not restart
// a server that exits (Done tells). A Cluster is immutable.
//
// EnsureRole, SetPassword and Sessions work on any server, through a connection of
// its superuser.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

const (
	pollInterval = 10 * time.Millisecond
	// stillRunning is how long Start waits for an earlier server on the same
	// folder, which shuts down by itself when who started it has died.
	stillRunning = 30 * time.Second
)

// Cluster is a running server. Its methods are safe for concurrent use.
type Cluster struct {
	*process.Process

	host   string
	port   int
	caFile string
}

// Start starts the cluster and waits until it serves, or until ctx ends.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("starting postgresql: %w", err)
	}
	s := &starter{cfg: cfg.withDefaults()}
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("starting postgresql: %w", err)
	}
	cluster, err := port.Retry(s.cfg.Port != 0, func() (*Cluster, error) { return s.start(ctx) })
	if err != nil {
		return nil, fmt.Errorf("starting postgresql: %w", err)
	}
	return cluster, nil
}

// starter holds what one Start works with.
type starter struct {
	cfg      Config
	programs string
	version  int // the programs' major version
	owner    *account.Account
	dir      string
}

// configArgument tells our server from any other.
func (s *starter) configArgument() string { return "config_file=" + s.path("postgresql.conf") }

func (s *starter) path(name string) string { return filepath.Join(s.dir, name) }

// prepare brings the folder to where the server can start on it.
func (s *starter) prepare(ctx context.Context) error {
	var err error
	if s.owner, err = account.Lookup("postgres"); err != nil {
		return errors.Join(ErrNotInstalled, err)
	}
	if s.dir, err = account.Place(s.cfg.Dir, s.owner); err != nil {
		return err
	}
	if s.programs, err = find(ctx, s.path("data")); err != nil {
		return err
	}
	s.version = version(ctx, s.programs)
	if err := s.copyFiles(); err != nil {
		return err
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	return s.awaitEarlier(ctx)
}

func (s *starter) copyFiles() error {
	certificate, err := os.ReadFile(s.cfg.CertFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(s.cfg.KeyFile)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"server.crt", certificate}, {"server.key", key}, {"pg_hba.conf", []byte(hba)}, {"pg_ident.conf", nil}} {
		if err := s.owner.WriteFile(s.path(file.name), file.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// awaitEarlier waits for the server of a process that died to shut down, and
// takes away the lock of one that was killed: PostgreSQL itself cannot tell a
// dead server's number from another program's or from a zombie's.
func (s *starter) awaitEarlier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stillRunning)
	defer cancel()
	lock := filepath.Join(s.path("data"), "postmaster.pid")
	for {
		pid, ok := lockHolder(lock)
		if !ok {
			return nil
		}
		if !process.Runs(pid, s.configArgument()) {
			return os.Remove(lock)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another server (process %d) runs on this folder", pid)
		case <-time.After(pollInterval):
		}
	}
}

func lockHolder(lock string) (int, bool) {
	text, err := os.ReadFile(lock) //nolint:gosec // the cluster's own folder
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	return pid, err == nil
}

// start makes one attempt with a port that is free now.
func (s *starter) start(ctx context.Context) (*Cluster, error) {
	number := s.cfg.Port
	if number == 0 {
		var err error
		if number, err = port.Pick(s.cfg.Host, 0); err != nil {
			return nil, err
		}
	}
	file := s.path("postgresql.conf")
	if err := s.owner.WriteFile(file, []byte(s.settings(number)), 0o600); err != nil {
		return nil, err
	}
	child, err := process.Start(process.Config{
		Path: filepath.Join(s.programs, "postgres"), Args: []string{"-c", s.configArgument()},
		Dir: s.dir, Env: environment(), Credential: s.owner.Credential(),
		Orphaned: syscall.SIGINT, Parse: parseLine, Log: s.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Process: child, host: s.cfg.Host, port: number, caFile: s.cfg.CAFile}
	if err := s.await(ctx, c); err != nil {
		_ = c.Kill() // its own failure is the one to report
		return nil, err
	}
	return c, nil
}

// Stop shuts the server down fast: it ends sessions, writes a checkpoint, and
// exits. When ctx ends first the server is killed and an error returned.
func (c *Cluster) Stop(ctx context.Context) error {
	return c.Process.Stop(ctx, syscall.SIGINT)
}

// Host is the address that the server listens on.
func (c *Cluster) Host() string { return c.host }

// Port is the TCP port that the server listens on.
func (c *Cluster) Port() int { return c.port }

// CAFile is what clients trust, "" if Config had none.
func (c *Cluster) CAFile() string { return c.caFile }

// EncodeQuery encodes the parameters of a connection URL. A blank in them, such as in a
// file's path, becomes %20: url.Values.Encode writes a plus sign, which pgx and libpq
// take for itself.
func EncodeQuery(parameters url.Values) string {
	return strings.ReplaceAll(parameters.Encode(), "+", "%20")
}

// ConnString is a connection URL with the password in it: never log it.
func (c *Cluster) ConnString(user, password, database string) string {
	query := url.Values{"sslmode": {"require"}}
	if c.caFile != "" {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {c.caFile}}
	}
	address := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password),
		Host: net.JoinHostPort(c.host, strconv.Itoa(c.port)), Path: database, RawQuery: EncodeQuery(query),
	}
	return address.String()
}
