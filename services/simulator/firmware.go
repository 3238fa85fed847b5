package simulator

import (
	"math"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// firmware is how a controller spells topics.
type firmware struct {
	mac    topic.MAC
	old    bool // readings under cmnd, connectors as bare decimals
	dashed bool // dashes between the bytes of the MAC
}

// newFirmware gives the share of the fleet older firmware, spread evenly; every
// second of those puts dashes into the MAC.
func newFirmware(mac topic.MAC, i int, share float64) firmware {
	old := among(i, share)
	return firmware{mac: mac, old: old, dashed: old && int(math.Floor(float64(i)*share))%2 == 1}
}

// among tells whether controller i belongs to a share of the fleet, spread evenly.
func among(i int, share float64) bool {
	return math.Floor(float64(i+1)*share) > math.Floor(float64(i)*share)
}

// topic spells t, whose Root it replaces.
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

// filters are the controller's subscriptions, in both spellings of its MAC.
// Older firmware leaves out sensor-mode, where it would get its own readings.
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
