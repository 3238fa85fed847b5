package fleet

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/frame"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestDemoIsDeterministic(t *testing.T) {
	long := Demo(50)
	require.Equal(t, Demo(5), long[:5])
	require.Empty(t, Demo(0))
}

func TestDemoFirstSensorIsEnvironmental(t *testing.T) {
	c := Demo(1)[0]
	require.Equal(t, FirstMAC, c.MAC)
	s := c.Connectors[0].Components[0]
	require.Equal(t, "sensor-1", s.String())
	raw := []byte{
		0x01, 0x03, 0x0C, 0x09, 0xF8, 0x13, 0x88, 0x02, 0xBC,
		0, 0, 0, 0, 0, 0, 0x18, 0x28,
	}
	require.Len(t, raw, header+s.Sensor.Template.DataLength+2)
	var got []string
	for i, p := range s.Sensor.Template.Points {
		require.Equal(t, i+1, p.DataPointID)
		v, err := p.Field.Decode(raw)
		require.NoError(t, err)
		got = append(got, fmt.Sprint(p.Label, " ", v.Number, " ", p.Unit))
	}
	require.Equal(t, []string{"Temperature 25.52 °C", "Humidity 50 %", "CO2 700 ppm"}, got)
}

func TestDemoIDsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	unique := func(kind string, id any) {
		key := fmt.Sprint(kind, id)
		require.False(t, seen[key], key)
		seen[key] = true
	}
	for _, c := range Demo(300) {
		unique("device", c.ControllerID)
		unique("mac", c.MAC)
		unique("serial", c.SerialNumber)
		for _, k := range c.Connectors {
			unique("connector", k.ConnectorID)
		}
		for _, s := range c.Sensors() {
			unique("device", s.DeviceID)
			unique("pin", s.PinID)
		}
		require.Less(t, len(c.Sensors()), devicesEach)
		require.LessOrEqual(t, len(c.Sensors()), pinsEach)
	}
}

func TestDemoMACs(t *testing.T) {
	for i, c := range Demo(20) {
		mac, err := topic.ParseMAC(string(c.MAC))
		require.NoError(t, err)
		require.Equal(t, mac, c.MAC)
		if i > 0 {
			require.True(t, strings.HasPrefix(string(mac), "02"), "locally administered, unicast")
		}
	}
}

func TestDemoCoversEveryComponentKind(t *testing.T) {
	kinds := map[topic.ComponentKind]bool{}
	modes := map[topic.Mode]bool{}
	for _, connector := range Demo(1)[0].Connectors {
		modes[connector.Mode] = true
		for _, c := range connector.Components {
			kinds[c.Kind] = true
			require.Equal(t, c.Kind == topic.Sensor, c.Sensor != nil)
		}
	}
	require.Len(t, modes, 3)
	for k := topic.Sensor; k <= topic.ExitButtons; k++ {
		require.True(t, kinds[k], k.String())
	}
}

func TestTemplatesAreSound(t *testing.T) {
	for _, tpl := range templates() {
		t.Run(tpl.Name, func(t *testing.T) {
			used := make([]string, header+tpl.DataLength)
			for _, p := range tpl.Points {
				require.NoError(t, p.Field.Validate(), p.Label)
				require.GreaterOrEqual(t, p.Field.Offset, header, p.Label)
				require.LessOrEqual(t, p.Field.Offset+p.Field.Length, len(used), p.Label)
				isBit := strings.HasPrefix(p.Field.Encoding.String(), "Bit")
				for i := p.Field.Offset; i < p.Field.Offset+p.Field.Length; i++ {
					require.True(t, used[i] == "" || isBit && used[i] == "bit", "%s overlaps", p.Label)
					used[i] = map[bool]string{true: "bit", false: "whole"}[isBit]
				}
				requireEncodable(t, p, make([]byte, len(used)+2))
			}
		})
	}
}

// requireEncodable tries the ends of the signal's range, and for a counter a
// thousand times its start.
func requireEncodable(t *testing.T, p Point, buf []byte) {
	t.Helper()
	if p.Format == "Text" {
		require.NoError(t, p.Field.Encode(buf, frame.FieldValue{IsText: true, Text: p.Signal.Text}))
		return
	}
	require.Less(t, p.Signal.Low, p.Signal.High)
	for _, v := range []float64{p.Signal.Low, p.Signal.High} {
		require.NoError(t, p.Field.Encode(buf, frame.FieldValue{Number: v}), p.Label)
	}
}

func TestTemplatesUseEveryEncoding(t *testing.T) {
	var names []string
	for _, tpl := range templates() {
		for _, p := range tpl.Points {
			names = append(names, p.Field.Encoding.String())
		}
	}
	all := strings.Join(names, " ") + " "
	for _, want := range []string{
		"Int8 ", "Uint8 ", "Int16", "Uint16", "Int32", "Uint32", "Int64", "Uint64",
		"Float32", "Float64", "Bool ", "Bit", "BCD ", "ASCII ", "LE ", "CDAB ", "BADC ",
	} {
		require.Contains(t, all, want)
	}
}
