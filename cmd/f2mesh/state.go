package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// state is the directory of a mesh that `f2mesh up` runs. Everything that it
// makes is in there, or as root behind a link in there (account.Place).
type state struct{ dir string }

func (s state) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// rootFolder has the root's key from the first start until somebody takes it off the
// machine. No service is told of it.
const rootFolder = "root-key"

// rootKey is the file of the root's key, "" where it is kept elsewhere.
func (s state) rootKey() string {
	if path := s.path(rootFolder, "root.key"); exists(path) {
		return path
	}
	return ""
}

func (s state) secrets() string { return s.path("secrets") }
func (s state) devices() string { return s.path("devices") }

// files are the secret files of the mesh.
func (s state) files() credential.Files { return credential.Files(s.secrets()) }

func (s state) logFile() string { return s.path("f2mesh.log") }

// running is what run.json says of the mesh that runs now.
type running struct {
	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	Ready       bool      `json:"ready"`
	Host        string    `json:"host"`
	Public      string    `json:"public"` // where controllers and people come in with TLS
	Ports       ports     `json:"ports"`
	Controllers int       `json:"controllers"` // of the demo fleet
	Simulating  bool      `json:"simulating"`  // it plays them itself
	CAFile      string    `json:"ca_file"`
	Context     string    `json:"nats_context"`

	Issuer issuerFlags `json:"issuer"` // who signs devices' certificates
	// Decoder is how messages are decoded, for those that are decoded once more.
	Decoder json.RawMessage `json:"decoder"`
}

// ports are where the parts of a mesh listen.
type ports struct {
	MQTT      int `json:"mqtt"`
	MQTTTLS   int `json:"mqtt_tls"`
	People    int `json:"mqtt_people"`
	WebSocket int `json:"mqtt_websocket"`
	NATS      int `json:"nats"`
	Postgres  int `json:"postgres"`
	PgBouncer int `json:"pgbouncer,omitempty"` // 0: without
	HTTP      int `json:"http"`
	EST       int `json:"est"`
}

// lockFile is locked by the process that works on the directory.
const lockFile = "lock"

// errAlreadyRunning is what lock returns while another up holds the directory.
var errAlreadyRunning = errors.New("a mesh runs on this state directory already: stop it with `f2mesh down`, or choose another --state-dir")

// lock makes this process the only up on the directory, until it exits.
func (s state) lock() (*os.File, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(s.path(lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, errAlreadyRunning
	}
	return f, nil
}

// hold notes in the lock which process has it.
func hold(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	return nil
}

// holder is the process that has the lock, if locked says that one has it.
func (s state) holder() (pid int, err error) {
	text, err := os.ReadFile(s.path(lockFile))
	if err != nil {
		return 0, fmt.Errorf("reading the lock: %w", err)
	}
	if pid, err = strconv.Atoi(string(text)); err != nil {
		return 0, errors.New("the mesh is still starting; try again in a moment")
	}
	return pid, nil
}

// command is how a person runs a command of this program on this directory.
func (s state) command(name string) string {
	command := os.Args[0] + " " + name
	usual, err := filepath.Abs(".f2mesh")
	if err == nil && s.dir != usual && s.dir != os.Getenv("F2MESH_STATE_DIR") {
		command += " --state-dir " + shellQuote(s.dir)
	}
	return command
}

// locked tells whether an up holds the directory.
func (s state) locked() bool {
	f, err := s.lock()
	if err == nil {
		_ = f.Close()
	}
	return errors.Is(err, errAlreadyRunning)
}

// load reads run.json of the mesh that runs; the error says what to do if none
// does.
func (s state) load() (running, error) {
	r, err := s.last()
	if err != nil || !s.locked() {
		return running{}, fmt.Errorf("no mesh runs on %s: start one with `f2mesh up`, or name its directory with --state-dir", s.dir)
	}
	if pid, err := s.holder(); err != nil || pid != r.PID {
		return running{}, fmt.Errorf("the mesh on %s is still starting: try again in a moment", s.dir) // run.json is the last one's
	}
	return r, nil
}

// last reads run.json whether or not the mesh still runs.
func (s state) last() (r running, err error) {
	data, err := os.ReadFile(s.path("run.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

func (s state) save(r running) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.path("run.json"), append(data, '\n'), 0o600, renameio.WithTempDir(s.path())); err != nil {
		return fmt.Errorf("saving run.json: %w", err)
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// authority is the file of the CAs of the mesh on the directory.
func (s state) authority() string { return s.path("pki", "ca.crt") }

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
