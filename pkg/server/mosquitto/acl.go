package mosquitto

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	conf "github.com/f2mesh/f2mesh/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// ConfigFiles of a broker's folder.
const (
	confFile       = "mosquitto.conf"
	caFile         = "ca.crt"
	serverCertFile = "server.crt"
	serverKeyFile  = "server.key"
	aclFile        = "acl"
	deviceCRLFile  = "devices.crl"
)

// controllersLine divides the ACL: what stands before it is mosquitto/internal.acl.
var controllersLine = []byte("\n# Controllers, one entry each: made by f2mesh.\n") //nolint:gochecknoglobals // a constant

// WriteDeviceACL replaces the list of controllers in the broker folder dir, for a
// broker that no Gate keeps. The broker reads it at its next Reload. It may be
// called from any process that may write there, also before the broker's first
// start.
func WriteDeviceACL(dir string, macs []topic.MAC) error {
	owner, folder, err := place(dir)
	if err != nil {
		return fmt.Errorf("writing device ACL: %w", err)
	}
	spell, err := granted(context.Background())
	if err != nil {
		return fmt.Errorf("writing device ACL: %w", err)
	}
	list := deviceACL(macs, spell)
	if err := checkACL(list); err != nil {
		return fmt.Errorf("writing device ACL: %w", err)
	}
	if err := owner.WriteFile(filepath.Join(folder, aclFile), acl(list), 0o600); err != nil {
		return fmt.Errorf("writing device ACL: %w", err)
	}
	return nil
}

// acl is the broker's one file of that kind: the services, then the controllers.
func acl(controllers []byte) []byte {
	return slices.Concat(conf.InternalACL, controllersLine, controllers)
}

// renewACL brings the services' part of an ACL to this version's form.
func renewACL(file []byte) []byte {
	_, controllers, _ := bytes.Cut(file, controllersLine)
	return acl(controllers)
}

// deviceACL grants each controller its own topics in the given spellings of its MAC
// and nothing else. `+` must fill a whole level in an ACL, so the components
// cannot be told apart by name here; the bridge does that.
func deviceACL(macs []topic.MAC, spell spellings) []byte {
	var file bytes.Buffer
	for _, mac := range macs {
		fmt.Fprintf(&file, "\nuser %s\n", mac.Dashed())
		for _, spelling := range spell(mac) {
			fmt.Fprintf(&file, "topic write tele/f2-%[1]s/#\n"+
				"topic write stat/f2-%[1]s/#\n"+
				"topic write cmnd/f2-%[1]s/sensor-mode/+/+\n"+
				"topic read cmnd/f2-%[1]s/#\n", spelling)
		}
	}
	return file.Bytes()
}

// ErrNotRunning is returned by Reload when no broker runs on the folder.
var ErrNotRunning = errors.New("no broker runs on this folder")

// Reload makes the broker that runs on dir, started by whichever process, read
// passwords, ACLs and certificates again. One in another container does so a moment
// later (Attendant).
func Reload(dir string) error {
	folder, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return fmt.Errorf("reloading broker: %w", ErrNotRunning)
	}
	broker, runs := running(folder)
	switch {
	case !runs:
		err = ErrNotRunning
	case broker.pid != 0:
		err = syscall.Kill(broker.pid, syscall.SIGHUP)
	default:
		_, err = requestReload(folder)
	}
	if err != nil {
		return fmt.Errorf("reloading broker: %w", err)
	}
	return nil
}

// runningPid is the process id of the broker on dir, 0 if there is none. The pid
// file outlives a killed broker, and its number may be another program's by now,
// be it the machine's own Mosquitto.
func runningPid(dir string) int {
	folder, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(folder, "data", "mosquitto.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !process.Runs(pid, filepath.Join(folder, confFile)) {
		return 0
	}
	return pid
}

// place finds whom the broker runs as and where its folder really is.
func place(dir string) (*account.Account, string, error) {
	owner, err := account.Lookup("mosquitto")
	if err != nil {
		return nil, "", fmt.Errorf("%w (Debian: apt-get install mosquitto)", err)
	}
	folder, err := account.Place(dir, owner)
	return owner, folder, err
}
