package simulator

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

const manyMalformed = 5400

func TestMalformedIsDeterministic(t *testing.T) {
	same := 0
	for n := range int64(500) {
		m := newMalformed(7, n, fleet.FirstMAC)
		require.Equal(t, m, newMalformed(7, n, fleet.FirstMAC))
		if o := newMalformed(8, n, fleet.FirstMAC); o.topic == m.topic && string(o.body) == string(m.body) {
			same++
		}
	}
	require.Less(t, same, 5)
}

func TestMalformedMessagesAreDistinct(t *testing.T) {
	seen := map[string]int64{}
	for n := range int64(manyMalformed) {
		m := newMalformed(1, n, fleet.FirstMAC)
		key := m.topic + "\x00" + string(m.body)
		before, ok := seen[key]
		require.False(t, ok, "%s: %d and %d are equal", classes[m.class].name, before, n)
		seen[key] = n
	}
}

// TestMalformedTopicsAreAccepted checks Mosquitto's rules for topics.
func TestMalformedTopicsAreAccepted(t *testing.T) {
	for n := range int64(manyMalformed) {
		m := newMalformed(2, n, fleet.FirstMAC)
		require.True(t, utf8.ValidString(m.topic))
		require.Less(t, len(m.topic), 1<<16)
		require.NotContains(t, m.topic, "+")
		require.NotContains(t, m.topic, "#")
		for _, r := range m.topic {
			require.False(t, r < 0x20 || r >= 0x7f && r <= 0x9f, "%s: control character", classes[m.class].name)
		}
		mac, ok := topic.FindMAC(m.topic)
		require.True(t, ok)
		require.Equal(t, fleet.FirstMAC, mac)
		require.Less(t, len(m.body)+len(m.topic), 1<<20)
	}
}

// TestMalformedIsRefused parses each message as the stages do. The control is a valid
// message.
func TestMalformedIsRefused(t *testing.T) {
	c := fleet.Demo(1)[0]
	require.Empty(t, refusal(c, "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", (&maker{serial: "x-1", Rand: newTestRand()}).sound()))

	reasons := map[string]map[string]bool{}
	for n := range int64(manyMalformed) {
		m := newMalformed(3, n, c.MAC)
		class := classes[m.class].name
		reason := refusal(c, m.topic, string(m.body))
		require.NotEmpty(t, reason, "%s: %q %.200q is not refused", class, m.topic, m.body)
		require.Equal(t, strings.HasPrefix(class, "topic_"), strings.HasPrefix(reason, "topic"), "%s: %s", class, reason)
		if reasons[class] == nil {
			reasons[class] = map[string]bool{}
		}
		reasons[class][reason] = true
	}
	require.Len(t, reasons, len(classes))
	for _, class := range classes {
		t.Log(class.name, reasons[class.name])
	}
}

// refusal returns why a message cannot be decoded, or "".
func refusal(c fleet.Controller, name, body string) string {
	t, err := topic.Parse(name)
	if err != nil {
		return fmt.Sprint(err)
	}
	p, err := new(payload.Parser).Parse(t, []byte(body))
	if err != nil {
		return fmt.Sprint(err)
	}
	if t.Component.Kind != topic.Sensor {
		return ""
	}
	for _, connector := range c.Connectors {
		for _, k := range connector.Components {
			if connector.Number != t.Connector || k.Component != t.Component {
				continue
			}
			for _, point := range k.Sensor.Template.Points {
				if _, err := point.Field.Decode(p.Frame); p.Frame == nil || err == nil {
					return ""
				}
			}
			return "frame"
		}
	}
	return "no such sensor"
}
