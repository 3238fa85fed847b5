package mesh

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

	"github.com/f2mesh/f2mesh/pkg/operate/backup"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// State is the directory of a mesh that `f2mesh up` runs. Everything that it
// makes is in there, or as root behind a link in there (account.Place).
type State struct {
	Dir string
	// Vault says where the mesh's Vault is, for commands that have no flags of their own
	// for it; nil: there is none.
	Vault func() (VaultFlags, error)
}

// VaultFlags are what Vault returns, or none.
func (s State) VaultFlags() (VaultFlags, error) {
	if s.Vault == nil {
		return VaultFlags{}, nil
	}
	return s.Vault()
}

// Path is that of a file in the directory.
func (s State) Path(elements ...string) string {
	return filepath.Join(append([]string{s.Dir}, elements...)...)
}

// RootFolder has the root's key from the first start until somebody takes it off the
// machine. No service is told of it.
const RootFolder = "root-key"

// RootKey is the file of the root's key, "" where it is kept elsewhere.
func (s State) RootKey() string {
	if path := s.Path(RootFolder, "root.key"); Exists(path) {
		return path
	}
	return ""
}

// SecretsDir is the directory of the secret files.
func (s State) SecretsDir() string { return s.Path("secrets") }

// DevicesDir is the directory of the controllers' certificate bundles.
func (s State) DevicesDir() string { return s.Path("devices") }

// SecretFiles are the secret files of the mesh.
func (s State) SecretFiles() credential.Folder {
	d, err := s.Last()
	return credential.Folder{Dir: s.SecretsDir(), Compose: err == nil && d.Containers}
}

// LogFile is where a mesh that runs in the background logs.
func (s State) LogFile() string { return s.Path("f2mesh.log") }

// Description is what run.json says of the mesh: `f2mesh up` writes it for the mesh that runs now, and `f2mesh init` for
// the one in containers.
type Description struct {
	Containers bool `json:"containers,omitempty"`
	// Hosts are those of the servers that are not at Host.
	Hosts map[string]string `json:"hosts,omitempty"`

	PID         int       `json:"pid"`
	Started     time.Time `json:"started"`
	Ready       bool      `json:"ready"`
	Host        string    `json:"host"`
	Public      string    `json:"public"` // where controllers and people come in with TLS
	Ports       Ports     `json:"ports"`
	Controllers int       `json:"controllers"` // of the demo fleet
	Simulating  bool      `json:"simulating"`  // it plays them itself
	CAFile      string    `json:"ca_file"`
	Context     string    `json:"nats_context"`

	Issuer IssuerFlags `json:"issuer"` // who signs devices' certificates
	// Decoder is how messages are decoded, for those that are decoded once more.
	Decoder json.RawMessage `json:"decoder"`
}

// Ports are where the parts of a mesh listen.
type Ports struct {
	MQTT      int `json:"mqtt"`
	MQTTTLS   int `json:"mqtt_tls"`
	People    int `json:"mqtt_people"`
	WebSocket int `json:"mqtt_websocket"`
	NATS      int `json:"nats"`
	// Nodes are those of the other NATS servers of a cluster.
	Nodes     []int `json:"nats_nodes,omitempty"`
	Postgres  int   `json:"postgres"`
	Telemetry int   `json:"telemetry,omitempty"` // 0: Postgres has the readings, too
	PgBouncer int   `json:"pgbouncer,omitempty"` // 0: without
	HTTP      int   `json:"http"`
	EST       int   `json:"est"`
}

// LockFile is locked by the process that works on the directory.
const LockFile = "lock"

// ErrAlreadyRunning is what lock returns while another up holds the directory.
var ErrAlreadyRunning = errors.New("a mesh runs on this state directory already: stop it with `f2mesh down`, or choose another --state-dir")

// Lock makes this process the only up on the directory, until it exits.
func (s State) Lock() (*os.File, error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the state directory: %w", err)
	}
	f, err := os.OpenFile(s.Path(LockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, ErrAlreadyRunning
	}
	return f, nil
}

// NoteHolder notes in the lock which process has it.
func NoteHolder(lock *os.File) error {
	if err := lock.Truncate(0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	return nil
}

// Holder is the process that has the lock, if locked says that one has it.
func (s State) Holder() (pid int, err error) {
	text, err := os.ReadFile(s.Path(LockFile))
	if err != nil {
		return 0, fmt.Errorf("reading the lock: %w", err)
	}
	if pid, err = strconv.Atoi(string(text)); err != nil {
		return 0, errors.New("the mesh is still starting; try again in a moment")
	}
	return pid, nil
}

// Command is how a person runs a command of this program on this directory.
func (s State) Command(name string) string {
	command := os.Args[0] + " " + name
	usual, err := filepath.Abs(".f2mesh")
	if err == nil && s.Dir != usual && s.Dir != os.Getenv("F2MESH_STATE_DIR") {
		command += " --state-dir " + ShellQuote(s.Dir)
	}
	return command
}

// Locked tells whether an up holds the directory.
func (s State) Locked() bool {
	f, err := s.Lock()
	if err == nil {
		_ = f.Close()
	}
	return errors.Is(err, ErrAlreadyRunning)
}

// Load reads run.json of the mesh that runs; the error says what to do if none
// does.
func (s State) Load() (Description, error) {
	r, err := s.Last()
	if err == nil && r.Containers {
		return r, nil
	}
	if err != nil || !s.Locked() {
		return Description{}, fmt.Errorf("no mesh runs on %s: start one with `f2mesh up`, or name its directory with --state-dir", s.Dir)
	}
	if pid, err := s.Holder(); err != nil || pid != r.PID {
		return Description{}, fmt.Errorf("the mesh on %s is still starting: try again in a moment", s.Dir) // run.json is the last one's
	}
	return r, nil
}

// Last reads run.json whether or not the mesh still runs.
func (s State) Last() (r Description, err error) {
	data, err := os.ReadFile(s.Path("run.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(data, &r)
}

// Save writes run.json in one step.
func (s State) Save(r Description) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(s.Path("run.json"), append(data, '\n'), 0o600, renameio.WithTempDir(s.Path())); err != nil {
		return fmt.Errorf("saving run.json: %w", err)
	}
	return nil
}

// Exists tells whether there is a file or directory at the path.
func Exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// CAFile is the file of the CAs of the mesh on the directory.
func (s State) CAFile() string { return s.Path("pki", "ca.crt") }

// ShellQuote quotes a text for a POSIX shell.
func ShellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// StartCommand is how a person starts the mesh of a backup. The demo fleet, which up
// has by default, must not come into somebody's data.
func StartCommand(st State, m *backup.Manifest) string {
	command := []string{st.Command("up"), "--no-simulate", "--controllers=0"}
	for _, argument := range m.Arguments {
		command = append(command, ShellQuote(argument))
	}
	return strings.Join(command, " ")
}
