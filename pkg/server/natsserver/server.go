// Package natsserver runs a NATS server with JetStream inside this process, from
// the configuration in the folder nats/ that a stand-alone server takes too.
//
// It serves a real port, over TLS and by password; connections from the same
// process may go through memory instead (InProcess), by the same passwords and
// permissions but without TLS. The package creates no streams: services do, from
// the files in nats/. A Server is immutable; its log adapter guards the first
// fatal message with a channel.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const pollInterval = 5 * time.Millisecond

// Server is a running NATS server. Its methods are safe for concurrent use.
type Server struct {
	server *server.Server
	lock   *os.File
	dir    string
	host   string
	port   int
	filled string // the folder that Stop brings to disk
	failed <-chan struct{}
}

// Start starts the server and waits until it and JetStream serve, or until ctx
// ends. Recovering large streams takes its time.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("starting nats-server: %w", err)
	}
	cfg = cfg.withDefaults()
	return locked(cfg.Dir, func() (*Server, error) {
		return port.Retry(cfg.Port > 0, func() (*Server, error) { return start(ctx, cfg) })
	})
}

// locked starts a server on a folder that it holds and has looked through.
func locked(dir string, start func() (*Server, error)) (s *Server, err error) {
	lock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("starting nats-server: %w", err)
	}
	if err = checkBlocks(dir); err == nil {
		s, err = start()
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("starting nats-server: %w", err)
	}
	s.lock, s.dir = lock, dir
	return s, nil
}

// lockDir makes the folder and holds it: two servers on one folder would destroy
// each other's streams, and the server itself does not look.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // our own folder
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("another server runs on this folder: %w", err)
	}
	return lock, nil
}

// start makes one attempt with ports that are free now.
func start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{host: cfg.Host, port: cfg.Port}
	if s.port <= 0 {
		free, err := port.Pick(cfg.Host, 0)
		if err != nil {
			return nil, err
		}
		s.port = free
	}
	file, err := cfg.writeFiles(s.port)
	if err != nil {
		return nil, err
	}
	if cfg.Filling {
		s.filled = cfg.Dir
	}
	return s, s.run(ctx, file, cfg.Log)
}

// run starts the server from its configuration.
func (s *Server) run(ctx context.Context, file string, to *slog.Logger) error {
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		return fmt.Errorf("reading nats-server.conf: %w", err)
	}
	options.NoSigs = true // the process has one owner of signals, and it is not this package
	if s.filled != "" {
		options.SyncAlways = false
	}
	if s.server, err = server.NewServer(options); err != nil {
		return err
	}
	log := newLogger(to)
	s.failed = log.failed
	s.server.SetLoggerV2(log, false, false, false)
	go s.server.Start()
	err = s.await(ctx, log)
	if err == nil && options.Cluster.Port == 0 { // in a cluster the others have it
		err = s.allThere(options.StoreDir, log)
	}
	if err != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	return err
}

// await returns once clients can connect and JetStream has recovered.
func (s *Server) await(ctx context.Context, log *logger) error {
	for !s.server.ReadyForConnections(pollInterval) || !s.server.JetStreamEnabled() {
		select {
		case text := <-log.fatal:
			if strings.Contains(text, "address already in use") {
				return port.ErrTaken
			}
			return errors.New(text)
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to serve: %w", ctx.Err())
		default:
		}
	}
	return nil
}

// URL is what clients connect to.
func (s *Server) URL() string { return "tls://" + net.JoinHostPort(s.host, strconv.Itoa(s.port)) }

// Host is the address that the server listens on.
func (s *Server) Host() string { return s.host }

// Port is the clients' TCP port.
func (s *Server) Port() int { return s.port }

// Failed is closed once a stream could not be written, such as on a full disk. From then on
// the server stores nothing in it until it is started again, even where the disk has room.
func (s *Server) Failed() <-chan struct{} { return s.failed }

// InProcess is for nats.InProcessServer: a connection through memory.
func (s *Server) InProcess() nats.InProcessConnProvider { return s.server }

// ErrRunning is the error of a stop that did not end in time. No other server can run on
// the folder until this process has ended.
var ErrRunning = errors.New("nats-server does not stop")

// stacksFile is where Stop writes what a server does that does not stop.
const stacksFile = "goroutines.txt"

// Stop closes all connections, writes the streams' state, and waits for it. When
// ctx ends first, the rest goes on without the caller, and the error is ErrRunning.
func (s *Server) Stop(ctx context.Context) error {
	stopped := make(chan error, 1)
	go func() {
		s.server.Shutdown()
		s.server.WaitForShutdown()
		err := errors.Join(syncFolder(s.filled), markStopped(s.dir))
		_ = s.lock.Close() // lets the next server in
		stopped <- err
	}()
	select {
	case err := <-stopped:
		return err
	case <-ctx.Done():
		path := filepath.Join(s.dir, stacksFile)
		if file, err := os.Create(path); err == nil { //nolint:gosec // in the server's folder
			_ = pprof.Lookup("goroutine").WriteTo(file, 2)
			_ = file.Close()
		}
		return fmt.Errorf("%w; what it does is in %s", ErrRunning, path)
	}
}

// syncFolder brings a folder's files and names to disk. "" is none.
func syncFolder(dir string) error {
	if dir == "" {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return account.SyncPath(path)
	})
	if err != nil {
		return fmt.Errorf("bringing the streams to disk: %w", err)
	}
	return nil
}
