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
	same, other := 0, NewMalformed(8)
	for n := range int64(500) {
		m := NewMalformed(7).Message(n, fleet.FirstMAC)
		require.Equal(t, m, NewMalformed(7).Message(n, fleet.FirstMAC))
		if o := other.Message(n, fleet.FirstMAC); o.Topic == m.Topic && string(o.Body) == string(m.Body) {
			same++
		}
	}
	require.Less(t, same, 5)
}

func TestMalformedMessagesAreDistinct(t *testing.T) {
	g := NewMalformed(1)
	seen := map[string]int64{}
	for n := range int64(manyMalformed) {
		m := g.Message(n, fleet.FirstMAC)
		key := m.Topic + "\x00" + string(m.Body)
		before, ok := seen[key]
		require.False(t, ok, "%s: %d and %d are equal", m.Class, before, n)
		seen[key] = n
	}
}

// TestMalformedTopicsAreAccepted checks what Mosquitto asks of a topic.
func TestMalformedTopicsAreAccepted(t *testing.T) {
	g := NewMalformed(2)
	for n := range int64(manyMalformed) {
		m := g.Message(n, fleet.FirstMAC)
		require.True(t, utf8.ValidString(m.Topic))
		require.Less(t, len(m.Topic), 1<<16)
		require.NotContains(t, m.Topic, "+")
		require.NotContains(t, m.Topic, "#")
		for _, r := range m.Topic {
			require.False(t, r < 0x20 || r >= 0x7f && r <= 0x9f, "%s: control character", m.Class)
		}
		mac, ok := topic.FindMAC(m.Topic)
		require.True(t, ok)
		require.Equal(t, fleet.FirstMAC, mac)
		require.Less(t, len(m.Body)+len(m.Topic), 1<<20)
	}
}

// TestMalformedIsRefused takes each message through the parsers as the stages
// do. The control is a sound message.
func TestMalformedIsRefused(t *testing.T) {
	c := fleet.Demo(1)[0]
	require.Empty(t, refusal(c, "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", (&maker{serial: "x-1", Rand: newTestRand()}).sound()))

	g := NewMalformed(3)
	reasons := map[string]map[string]bool{}
	for n := range int64(manyMalformed) {
		m := g.Message(n, c.MAC)
		reason := refusal(c, m.Topic, string(m.Body))
		require.NotEmpty(t, reason, "%s: %q %.200q is not refused", m.Class, m.Topic, m.Body)
		require.Equal(t, strings.HasPrefix(m.Class, "topic_"), strings.HasPrefix(reason, "topic"), "%s: %s", m.Class, reason)
		if reasons[m.Class] == nil {
			reasons[m.Class] = map[string]bool{}
		}
		reasons[m.Class][reason] = true
	}
	require.Len(t, reasons, len(Classes()))
	for _, class := range Classes() {
		t.Log(class, reasons[class])
	}
}

// refusal says why a message cannot be decoded, or is empty.
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
