package topic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1",
		"stat/f2-E4-FD-45-F6-54-BE/alarm-mode/99/motion-sensor-0",
		"cmnd/f2-e4:fd:45:f6:54:be/access-control-mode/J2/reader-1/success",
		"tele/f2-e4fd45f654be/access-control-mode/4/door-sensors",
		"tele/f2-e4fd45f654be/+/#/>",
		"////",
		"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := topic.Parse(s)
		found, ok := topic.FindMAC(s)
		if err != nil {
			var refused *topic.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, reasons, refused.Reason)
			require.Zero(t, got)
			return
		}
		require.True(t, ok)
		require.Equal(t, got.MAC, found)
		requireLegal(t, got)

		again, err := topic.Parse(got.MQTT())
		require.NoError(t, err)
		require.Equal(t, got, again)
		again, err = topic.ParseSubject(got.RawSubject())
		require.NoError(t, err)
		require.Equal(t, got, again)
	})
}

func FuzzParseSubject(f *testing.F) {
	for _, s := range []string{
		"f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1",
		"f2.raw.cmnd.e4fd45f654be.access-control-mode.4.reader-2.success",
		"f2.decoded.e4fd45f654be.access-control-mode.5.door-sensors",
		"f2.command.e4fd45f654be.alarm-mode.0.siren-99",
		"f2.raw.tele.*.>",
		"f2.dead.bridge.bad_mac.e4fd45f654be",
		"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := topic.ParseSubject(s)
		if err != nil {
			var refused *topic.Error
			require.ErrorAs(t, err, &refused)
			require.Contains(t, reasons, refused.Reason)
			require.Zero(t, got)
			return
		}
		require.Contains(t, []string{got.RawSubject(), got.DecodedSubject(), got.CommandSubject()}, s)
		if got.Root != "" { // a decoded subject has none, and no raw subject then
			requireLegal(t, got)
		}
	})
}
