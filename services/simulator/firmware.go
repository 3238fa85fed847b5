package simulator

import (
	"math"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// firmware decides how a controller spells topics.
type firmware struct {
	mac    topic.MAC
	old    bool // readings under cmnd, connectors as bare decimals
	dashed bool // dashes between the bytes of the MAC
}

// newFirmware returns the firmware of controller i. A share of the fleet, spread evenly,
// has older firmware; every second of those writes the MAC with dashes.
func newFirmware(mac topic.MAC, i int, share float64) firmware {
	old := among(i, share)
	return firmware{mac: mac, old: old, dashed: old && int(math.Floor(float64(i)*share))%2 == 1}
}

// among reports whether controller i belongs to a share of the fleet, spread evenly.
func among(i int, share float64) bool {
	return math.Floor(float64(i+1)*share) > math.Floor(float64(i)*share)
}

// topic returns the MQTT topic of t, with another Root, as the firmware spells it.
func (f firmware) topic(root topic.Root, t topic.Topic) string {
	t.Root = root
	s := t.MQTT()
	if f.old {
		s = strings.Replace(s, "/J"+strconv.Itoa(t.Connector)+"/", "/"+strconv.Itoa(t.Connector)+"/", 1)
	}
	if f.dashed {
		s = strings.Replace(s, string(f.mac), f.mac.Dashed(), 1)
	}
	return s
}

// filters returns the controller's subscriptions, in both spellings of its MAC.
// Older firmware leaves out sensor-mode, where it would receive its own readings.
func (f firmware) filters() []string {
	var list []string
	for _, mac := range []string{string(f.mac), f.mac.Dashed()} {
		prefix := string(topic.Cmnd) + "/f2-" + mac + "/"
		if !f.old {
			list = append(list, prefix+"#")
			continue
		}
		for _, mode := range []topic.Mode{topic.AccessControlMode, topic.AlarmMode} {
			list = append(list, prefix+string(mode)+"/#")
		}
	}
	return list
}
