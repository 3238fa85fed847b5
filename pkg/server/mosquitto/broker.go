// Package mosquitto runs an Eclipse Mosquitto broker from the files in the
// folder mosquitto/, for `f2mesh up` and for tests.
//
// Start renders the configuration into Config.Dir, writes users and ACLs, copies
// the certificates where the broker's account can read them, and returns once
// the broker serves. The broker is a child process: it ends in order when we die.
// What it has queued is kept in Dir and is there again after Stop and Start; what
// a Kill loses is told in mosquitto.conf beside autosave_interval. The package
// does not restart a broker that exits (Done tells). A Broker is immutable.
//
// A Gate changes who comes in through the controllers' listener while a broker
// runs, from any process that may write its folder. The package speaks just enough MQTT
// to log in and to read the broker's log.
package mosquitto

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// ErrNotInstalled is returned by Start when there is no mosquitto program.
var ErrNotInstalled = errors.New("mosquitto is not installed (Debian: apt-get install mosquitto)")

// stillRunning is how long Start waits for an earlier broker on the same folder,
// which ends by itself when the process that started it has died.
const stillRunning = 10 * time.Second

// Broker is a running Mosquitto. Its methods are safe for concurrent use.
type Broker struct {
	*process.Process

	dir                                      string
	port, tlsPort, peoplePort, webSocketPort int
	host, public                             string
	doors                                    *Doors
	shut                                     chan struct{} // closed once the doors are
}

// Start starts a broker and waits until it serves, or until ctx ends.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("starting mosquitto: %w", err)
	}
	program, err := find()
	if err != nil {
		return nil, err
	}
	s := &starter{cfg: cfg.withDefaults(), program: program}
	if err := s.prepare(ctx); err != nil {
		return nil, fmt.Errorf("starting mosquitto: %w", err)
	}
	broker, err := port.Retry(s.fixedPorts(), func() (*Broker, error) { return s.start(ctx) })
	if err != nil {
		return nil, fmt.Errorf("starting mosquitto: %w", err)
	}
	return broker, nil
}

// find looks for the program where PATH and Debian have it; an ordinary user's
// PATH has no sbin.
func find() (string, error) {
	if program, err := exec.LookPath("mosquitto"); err == nil {
		return program, nil
	}
	for _, program := range []string{"/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/opt/homebrew/sbin/mosquitto"} {
		if _, err := os.Stat(program); err == nil {
			return program, nil
		}
	}
	return "", ErrNotInstalled
}

// starter holds what one Start works with.
type starter struct {
	cfg     Config
	program string
	owner   *account.Account
	dir     string
}

// dataFolder is where the broker keeps sessions and queues, in its folder.
const dataFolder = "data"

// gated reports whether a Gate keeps the lists of who comes in.
func (s *starter) gated() bool { return s.cfg.CAFile == "" }

func (s *starter) fixedPorts() bool {
	return s.cfg.Port != 0 && s.cfg.TLSPort != 0 && s.cfg.PeoplePort != 0 && s.cfg.WebSocketPort != 0
}

// prepare writes all files but the configuration, which has the ports.
func (s *starter) prepare(ctx context.Context) error {
	var err error
	if s.owner, s.dir, err = place(s.cfg.Dir); err != nil {
		return err
	}
	if err := s.awaitEarlier(ctx); err != nil {
		return err
	}
	data := filepath.Join(s.dir, dataFolder)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	if err := s.owner.Own(data); err != nil {
		return err
	}
	key := newPeopleKey() // so that nobody knows one for long
	passwords, err := passwordFile(asKnown(s.cfg.Users, key))
	if err != nil {
		return err
	}
	rights, err := account.ReadFile(filepath.Join(s.dir, aclFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files := map[string][]byte{passwordsFile: passwords, aclFile: renewACL(rights), peopleKeyFile: []byte(key)}
	sources := map[string]string{serverCertFile: s.cfg.CertFile, serverKeyFile: s.cfg.KeyFile}
	if s.gated() {
		if err := haveLists(s.dir); err != nil {
			return err
		}
	} else {
		sources[caFile] = s.cfg.CAFile
	}
	for name, source := range sources {
		if files[name], err = os.ReadFile(source); err != nil { //nolint:gosec // the certificates that the caller names
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := s.owner.WriteFile(filepath.Join(s.dir, name), files[name], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// awaitEarlier waits for the broker of a process that died to end: two on one
// folder would overwrite each other's sessions.
func (s *starter) awaitEarlier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stillRunning)
	defer cancel()
	for pid := runningPid(s.dir); pid != 0; pid = runningPid(s.dir) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("another broker (process %d) runs on this folder", pid)
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// start makes one attempt with ports that are free now.
func (s *starter) start(ctx context.Context) (*Broker, error) {
	b := &Broker{dir: s.cfg.Dir, host: s.cfg.Host, public: s.cfg.Public, shut: make(chan struct{})}
	for _, p := range []struct {
		host   string
		wanted int
		chosen *int
	}{
		{b.host, s.cfg.Port, &b.port},
		{b.public, s.cfg.TLSPort, &b.tlsPort},
		{b.host, s.cfg.PeoplePort, &b.peoplePort},
		{b.public, s.cfg.WebSocketPort, &b.webSocketPort},
	} {
		*p.chosen = p.wanted
		if p.wanted == 0 {
			number, err := port.Pick(p.host, 0)
			if err != nil {
				return nil, err
			}
			*p.chosen = number
		}
	}
	text, err := rendering{dir: s.dir, autosave: s.cfg.Autosave, retained: s.cfg.Retained, memory: s.cfg.MemoryLimit, noCRL: !s.gated(), debug: s.cfg.Denied != nil, listeners: map[string]string{
		standardListener:    fmt.Sprintf("%d %s", b.port, b.host),
		standardTLSListener: fmt.Sprintf("%d %s", b.tlsPort, b.public),
		standardSocket:      "0 " + peopleSocket,
	}}.conf()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(s.dir, confFile)
	if err := s.owner.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	program := process.Config{Path: s.program, Dir: s.dir, Credential: s.owner.Credential(), Parse: s.cfg.parse(), Log: s.cfg.Log}
	if err := ForgetCommands(filepath.Join(s.dir, dataFolder)); err != nil {
		return nil, err
	}
	if err := s.saveSession(ctx, program, text); err != nil {
		return nil, err
	}
	program.Args = []string{"-c", file}
	b.Process, err = process.Start(program)
	if err != nil {
		return nil, err
	}
	err = s.await(ctx, b)
	if err == nil {
		err = s.openDoors(b)
	}
	if err != nil {
		_ = b.Process.Kill() // its own failure is the one to report
		return nil, err
	}
	return b, nil
}

// saveSession sees to it that the broker has its session from its first moment.
func (s *starter) saveSession(ctx context.Context, program process.Config, conf string) error {
	return FirstSession{
		Session: s.cfg.Session, Password: s.cfg.Users[s.cfg.Session.User], Data: filepath.Join(s.dir, dataFolder),
		Process: program, Conf: conf,
		Write: func(conf string) (string, error) {
			path := filepath.Join(s.dir, "first.conf")
			return path, s.owner.WriteFile(path, []byte(conf), 0o600)
		},
	}.Save(ctx)
}

// openDoors lets people in until the broker has ended, and has it save until then.
func (s *starter) openDoors(b *Broker) (err error) {
	b.doors, err = People{
		Dir: s.dir, Socket: filepath.Join(s.dir, peopleSocket), Plain: net.JoinHostPort(b.host, strconv.Itoa(b.peoplePort)),
		WebSocket: net.JoinHostPort(b.public, strconv.Itoa(b.webSocketPort)),
		CertFile:  s.cfg.CertFile, KeyFile: s.cfg.KeyFile, Origins: s.cfg.Origins, Log: s.cfg.Log,
	}.Open()
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: %w", port.ErrTaken, err)
	}
	if err == nil {
		go func() {
			if s.cfg.Autosave == (Autosave{}) {
				s.keepSaved(b)
			}
			<-b.Process.Done()
			_ = b.doors.Close() // nobody is left to tell
			close(b.shut)
		}()
	}
	return err
}

// keepSaved returns when the broker has ended.
func (s *starter) keepSaved(b *Broker) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-b.Process.Done()
		cancel()
	}()
	KeepSaved(ctx, filepath.Join(s.dir, dataFolder), b.Save)
}

// await returns once the broker serves our user.
func (s *starter) await(ctx context.Context, b *Broker) error {
	user := s.cfg.services()[0]
	who := client{user: user, password: s.cfg.Users[user]}
	if s.cfg.Session != (Session{}) {
		who = s.cfg.Session.client(s.cfg.Users[s.cfg.Session.User])
	}
	for {
		err := connect(ctx, b.Address(), who)
		if errors.Is(err, ErrRefused) {
			err = fmt.Errorf("%w: %w", port.ErrTaken, err)
		}
		if err == nil || errors.Is(err, port.ErrTaken) {
			return err
		}
		select {
		case <-b.Process.Done():
			return exited(b.Process, filepath.Join(s.dir, "data"))
		case <-ctx.Done():
			return fmt.Errorf("waiting for it to serve: %w", ctx.Err())
		case <-time.After(pollInterval):
		}
	}
}

// exited says why the broker ended; data is its data folder.
func exited(p *process.Process, data string) error {
	tail := p.Tail()
	switch {
	case strings.Contains(tail, "Address already in use"):
		return port.ErrTaken
	case strings.Contains(tail, "Couldn't open database"):
		return fmt.Errorf("it exited: %s: the database %s is damaged: see the incidents in docs/operations.md", tail, filepath.Join(data, savedFile))
	}
	return fmt.Errorf("it exited: %s", tail)
}

// Save makes the broker write sessions and queues to disk now. It does not wait.
func (b *Broker) Save() error { return b.Signal(syscall.SIGUSR1) }

// Stop makes the broker save and end, and waits for it. When ctx ends first the
// broker is killed and an error returned.
func (b *Broker) Stop(ctx context.Context) error {
	err := b.Process.Stop(ctx, syscall.SIGTERM)
	<-b.shut
	return err
}

// Kill ends the broker at once, without a save.
func (b *Broker) Kill() error {
	err := b.Process.Kill()
	<-b.shut
	return err
}

// Done is closed when the broker has ended, with all its listeners.
func (b *Broker) Done() <-chan struct{} { return b.shut }

// Host is the address of the listeners without TLS.
func (b *Broker) Host() string { return b.host }

// Port is that of the listener for services.
func (b *Broker) Port() int { return b.port }

// TLSPort is that of the listener for controllers.
func (b *Broker) TLSPort() int { return b.tlsPort }

// PeoplePort is that of the listener for people's tools.
func (b *Broker) PeoplePort() int { return b.peoplePort }

// WebSocketPort is that of the listener for browsers.
func (b *Broker) WebSocketPort() int { return b.webSocketPort }

// Address is host and port of the listener for services.
func (b *Broker) Address() string { return net.JoinHostPort(b.host, strconv.Itoa(b.port)) }

// TLSAddress is host and port of the listener for controllers.
func (b *Broker) TLSAddress() string { return net.JoinHostPort(b.public, strconv.Itoa(b.tlsPort)) }

// PeopleAddress is host and port of the listener for people's tools.
func (b *Broker) PeopleAddress() string { return net.JoinHostPort(b.host, strconv.Itoa(b.peoplePort)) }
