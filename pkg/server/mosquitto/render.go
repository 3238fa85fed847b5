package mosquitto

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	conf "github.com/f2mesh/f2mesh/mosquitto"
)

// Folders of the container image that the configuration file names.
const (
	imageConfig = "/mosquitto/config/"
	imageData   = "/mosquitto/data/"
)

// The listeners that the configuration file names: services, controllers, and the
// socket behind People.
const (
	standardListener    = "1883"
	standardTLSListener = "8883"
	standardSocket      = "0 /mosquitto/log/people.sock"
)

// peopleSocket is that socket for a broker that Start runs, in its folder, which is its
// working directory: an absolute path may be longer than a socket's may be.
const peopleSocket = "data/people.sock"

// rendering turns the shipped configuration file into that of one broker. The
// file has no placeholders, so that a stand-alone Mosquitto takes it too.
type rendering struct {
	dir       string
	listeners map[string]string // by what the file says
	autosave  Autosave
	retained  bool
	memory    int64 // 0: as the file says
	noCRL     bool  // revocation lists are not asked for
	debug     bool  // the log tells of each message
}

func (r rendering) conf() (string, error) {
	lines := strings.Split(conf.Conf, "\n")
	listeners := 0
	for i, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		switch {
		case name == "listener":
			own, ok := r.listeners[value]
			if !ok {
				return "", fmt.Errorf("rendering mosquitto.conf: unexpected listener %s", value)
			}
			lines[i] = "listener " + own
			listeners++
		case strings.HasPrefix(name, "autosave_"):
			lines[i] = r.autosaveLine(name, line)
		case name == "retain_available" && r.retained:
			lines[i] = name + " true"
		case name == "memory_limit" && r.memory > 0:
			lines[i] = name + " " + strconv.FormatInt(r.memory, 10)
		case line == "log_type notice" && r.debug:
			lines[i] += "\nlog_type debug"
		case name == "crlfile" && r.noCRL:
			lines[i] = "#" + line
		case strings.HasPrefix(value, "/mosquitto/") && !strings.HasPrefix(name, "#"):
			value = strings.Replace(value, imageConfig, r.dir+"/", 1)
			lines[i] = name + " " + strings.Replace(value, imageData, r.dir+"/data/", 1)
		}
	}
	if listeners != len(r.listeners) {
		return "", fmt.Errorf("rendering mosquitto.conf: %d listeners instead of %d", listeners, len(r.listeners))
	}
	return strings.Join(lines, "\n"), nil
}

func (r rendering) autosaveLine(name, line string) string {
	onChanges := r.autosave.Changes > 0
	switch {
	case r.autosave == (Autosave{}):
		return line
	case name == "autosave_on_changes":
		return name + " " + strconv.FormatBool(onChanges)
	case onChanges:
		return name + " " + strconv.Itoa(r.autosave.Changes)
	default:
		return name + " " + strconv.Itoa(int(r.autosave.Every/time.Second))
	}
}
