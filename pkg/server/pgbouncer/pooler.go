// Package pgbouncer runs a PgBouncer from the files in the folder pgbouncer/, for
// `f2mesh up` and for tests: services share connections to PostgreSQL through it,
// a transaction at a time.
//
// Start renders the configuration into Config.Dir and returns once the pooler
// serves; PostgreSQL may be away. The pooler is a child process: it ends when we
// die. It keeps no data and no password but its own (pgbouncer.ini says how it
// knows who may in; whoever made the databases has run auth.sql in them). The
// package does not restart a pooler that exits (Done tells).
package pgbouncer

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"syscall"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// ErrNotInstalled is returned by Start when there is no pgbouncer program.
var ErrNotInstalled = errors.New("PgBouncer is not installed (Debian: apt-get install pgbouncer)")

const confFile, userlistFile = "pgbouncer.ini", "userlist.txt"

// accounts are whom the pooler may run as where this process is root, the best
// first: tools/install makes the first, Debian's package runs it as the second,
// who is the owner of databases too.
var accounts = []string{"pgbouncer", "postgres"} //nolint:gochecknoglobals // a constant list

// Pooler is a running PgBouncer. Its methods are safe for concurrent use.
type Pooler struct {
	*process.Process

	cfg  Config
	port int
}

// Start starts a pooler and waits until it serves, or until ctx ends.
func Start(ctx context.Context, cfg Config) (*Pooler, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("starting pgbouncer: %w", err)
	}
	s := &starter{cfg: cfg.withDefaults()}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("starting pgbouncer: %w", err)
	}
	pooler, err := port.Retry(s.cfg.Port != 0, func() (*Pooler, error) { return s.start(ctx) })
	if err != nil {
		return nil, fmt.Errorf("starting pgbouncer: %w", err)
	}
	return pooler, nil
}

// starter holds what one Start works with.
type starter struct {
	cfg     Config
	program string
	owner   *account.Account
	dir     string
}

func (s *starter) prepare() (err error) {
	if s.program, err = find(); err != nil {
		return err
	}
	if s.owner, err = lookup(); err != nil {
		return err
	}
	s.dir, err = account.Place(s.cfg.Dir, s.owner)
	return err
}

// find looks for the program where PATH and Debian have it; an ordinary user's
// PATH has no sbin.
func find() (string, error) {
	if program, err := exec.LookPath("pgbouncer"); err == nil {
		return program, nil
	}
	for _, program := range []string{"/usr/sbin/pgbouncer", "/usr/local/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"} {
		if _, err := os.Stat(program); err == nil {
			return program, nil
		}
	}
	return "", ErrNotInstalled
}

func lookup() (*account.Account, error) {
	name := accounts[len(accounts)-1]
	for _, candidate := range accounts {
		if _, err := user.Lookup(candidate); err == nil {
			name = candidate
			break
		}
	}
	return account.Lookup(name)
}

// start makes one attempt with a port that is free now.
func (s *starter) start(ctx context.Context) (*Pooler, error) {
	p := &Pooler{cfg: s.cfg, port: s.cfg.Port}
	if p.port == 0 {
		var err error
		if p.port, err = port.Pick(s.cfg.Host, 0); err != nil {
			return nil, err
		}
	}
	if err := s.write(p.port); err != nil {
		return nil, err
	}
	var err error
	p.Process, err = process.Start(process.Config{
		Path: s.program, Args: []string{filepath.Join(s.dir, confFile)}, Dir: s.dir, Env: []string{"TZ=UTC", "LC_ALL=C.UTF-8"},
		Credential: s.owner.Credential(), Parse: parseLine, Log: s.cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, p); err != nil {
		_ = p.Kill() // its own failure is the one to report
		return nil, err
	}
	return p, nil
}

// write puts everything that the pooler reads where its account reads it.
func (s *starter) write(number int) error {
	text, err := s.cfg.render(s.dir, number)
	if err != nil {
		return err
	}
	files := []struct {
		name string
		data []byte
	}{{confFile, []byte(text)}, {userlistFile, userlist(s.cfg.User, s.cfg.Password)}, {"ca.crt", nil}, {"server.crt", nil}, {"server.key", nil}}
	for i, source := range []string{s.cfg.CAFile, s.cfg.CertFile, s.cfg.KeyFile} {
		if files[i+2].data, err = os.ReadFile(source); err != nil { //nolint:gosec // the certificates that the caller names
			return err
		}
	}
	for _, file := range files {
		if err := s.owner.WriteFile(filepath.Join(s.dir, file.name), file.data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Stop lets transactions come to their end, then ends sessions and exits. When
// ctx ends first the pooler is killed and an error returned.
func (p *Pooler) Stop(ctx context.Context) error {
	return p.Process.Stop(ctx, syscall.SIGINT)
}

// Host is the address that the pooler listens on.
func (p *Pooler) Host() string { return p.cfg.Host }

// Port is the TCP port that the pooler listens on.
func (p *Pooler) Port() int { return p.port }

// ConnString is a connection URL with the password in it: never log it.
func (p *Pooler) ConnString(user, password, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, password), Host: address(p.cfg.Host, p.port), Path: database,
		RawQuery: postgres.EncodeQuery(url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.cfg.CAFile}}),
	}
	return u.String()
}
