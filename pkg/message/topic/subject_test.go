package topic_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestSubjects(t *testing.T) {
	for _, tc := range []struct{ topic, mqtt, raw, decoded, command string }{
		{
			topic:   "tele/f2-E4-FD-45-F6-54-BE/sensor-mode/1/sensor-1",
			mqtt:    "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1",
			raw:     "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1",
			decoded: "f2.decoded.e4fd45f654be.sensor-mode.1.sensor-1",
			command: "f2.command.e4fd45f654be.sensor-mode.1.sensor-1",
		},
		{
			topic:   "cmnd/f2-e4fd45f654be/access-control-mode/J4/reader-2/success",
			mqtt:    "cmnd/f2-e4fd45f654be/access-control-mode/J4/reader-2/success",
			raw:     "f2.raw.cmnd.e4fd45f654be.access-control-mode.4.reader-2.success",
			decoded: "f2.decoded.e4fd45f654be.access-control-mode.4.reader-2",
			command: "f2.command.e4fd45f654be.access-control-mode.4.reader-2.success",
		},
		{
			topic:   "stat/f2-e4fd45f654be/access-control-mode/5/door-sensors",
			mqtt:    "stat/f2-e4fd45f654be/access-control-mode/5/door-sensors",
			raw:     "f2.raw.stat.e4fd45f654be.access-control-mode.5.door-sensors",
			decoded: "f2.decoded.e4fd45f654be.access-control-mode.5.door-sensors",
			command: "f2.command.e4fd45f654be.access-control-mode.5.door-sensors",
		},
	} {
		t.Run(tc.topic, func(t *testing.T) {
			got, err := topic.Parse(tc.topic)
			require.NoError(t, err)
			require.Equal(t, tc.mqtt, got.MQTT())
			require.Equal(t, tc.raw, got.RawSubject())
			require.Equal(t, tc.decoded, got.DecodedSubject())
			require.Equal(t, tc.command, got.CommandSubject())
		})
	}
}

func TestParseSubjectRefuses(t *testing.T) {
	for _, tc := range []struct{ subject, reason string }{
		{"", topic.ReasonBadSubject},
		{"f2", topic.ReasonBadSubject},
		{"f2.dead.bridge.bad_mac.e4fd45f654be", topic.ReasonBadSubject},
		{"F2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", topic.ReasonBadSubject},
		{"f2.raw.", topic.ReasonBadRoot},
		{"f2.raw.tele", topic.ReasonBadLevels},
		{"f2.raw.*.e4fd45f654be.sensor-mode.1.sensor-1", topic.ReasonBadRoot},
		{"f2.raw.tele.e4fd45f654be.sensor-mode.1", topic.ReasonBadLevels},
		{"f2.raw.tele.>", topic.ReasonBadLevels},
		{"f2.raw.tele.E4fd45f654be.sensor-mode.1.sensor-1", topic.ReasonBadMAC},
		{"f2.raw.tele.e4-fd-45-f6-54-be.sensor-mode.1.sensor-1", topic.ReasonBadMAC},
		{"f2.raw.tele.e4fd45f654be.sensor-mode.J1.sensor-1", topic.ReasonBadConnector},
		{"f2.raw.tele.e4fd45f654be.sensor-mode.01.sensor-1", topic.ReasonBadConnector},
		{"f2.raw.tele.e4fd45f654be.other-mode.1.sensor-1", topic.ReasonBadMode},
		{"f2.raw.tele.e4fd45f654be.sensor-mode.1.*", topic.ReasonBadComponent},
		{"f2.raw.tele.e4fd45f654be.access-control-mode.1.reader-1.success", topic.ReasonBadVerb},
		{"f2.decoded.e4fd45f654be.access-control-mode.1.reader-1.success", topic.ReasonBadVerb},
		{"f2.command.e4fd45f654be.access-control-mode.1.reader-1.", topic.ReasonBadVerb},
		{"f2.command.e4fd45f654be.access-control-mode.1.reader-1.success.x", topic.ReasonBadLevels},
	} {
		t.Run(tc.subject, func(t *testing.T) {
			_, err := topic.ParseSubject(tc.subject)
			requireReason(t, err, tc.reason)
		})
	}
}

func TestComponentString(t *testing.T) {
	require.Equal(t, "sensor-1", topic.Component{Kind: topic.Sensor, Number: 1}.String())
	require.Equal(t, "motion-sensor-0", topic.Component{Kind: topic.MotionSensor}.String())
	require.Equal(t, "door-sensors", topic.Component{Kind: topic.DoorSensors}.String())
	require.Equal(t, "unknown-0", topic.Component{}.String())
}
