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

// The ports that the configuration file names.
const (
	standardPort          = "1883"
	standardTLSPort       = "8883"
	standardWebSocketPort = "9001"
)

// rendering turns the shipped configuration file into that of one broker. The
// file has no placeholders, so that a stand-alone Mosquitto takes it too.
type rendering struct {
	dir      string
	host     string
	ports    map[string]int
	autosave Autosave
	noCRL    bool // revocation lists are not asked for
	debug    bool // the log tells of each message
}

func (r rendering) conf() (string, error) {
	lines := strings.Split(conf.Conf, "\n")
	listeners := 0
	for i, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		switch {
		case name == "listener":
			port, ok := r.ports[value]
			if !ok {
				return "", fmt.Errorf("rendering mosquitto.conf: unexpected listener %s", value)
			}
			lines[i] = fmt.Sprintf("listener %d %s", port, r.host)
			listeners++
		case strings.HasPrefix(name, "autosave_"):
			lines[i] = r.autosaveLine(name, line)
		case line == "log_type notice" && r.debug:
			lines[i] += "\nlog_type debug"
		case name == "crlfile" && r.noCRL:
			lines[i] = "#" + line
		case strings.HasPrefix(value, "/mosquitto/") && !strings.HasPrefix(name, "#"):
			value = strings.Replace(value, imageConfig, r.dir+"/", 1)
			lines[i] = name + " " + strings.Replace(value, imageData, r.dir+"/data/", 1)
		}
	}
	if listeners != len(r.ports) {
		return "", fmt.Errorf("rendering mosquitto.conf: %d listeners instead of %d", listeners, len(r.ports))
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
