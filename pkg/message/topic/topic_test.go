package topic_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestParse(t *testing.T) {
	const mac = topic.MAC("e4fd45f654be")
	for _, tc := range []struct {
		topic string
		want  topic.Topic
	}{
		{
			"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1",
			topic.Topic{Root: topic.Tele, MAC: mac, Mode: topic.SensorMode, Connector: 1, Component: topic.Component{Kind: topic.Sensor, Number: 1}},
		},
		{
			"cmnd/f2-E4-FD-45-F6-54-BE/sensor-mode/0/sensor-0",
			topic.Topic{Root: topic.Cmnd, MAC: mac, Mode: topic.SensorMode, Component: topic.Component{Kind: topic.Sensor}},
		},
		{
			"stat/f2-e4:fd:45:f6:54:be/alarm-mode/99/motion-sensor-99",
			topic.Topic{Root: topic.Stat, MAC: mac, Mode: topic.AlarmMode, Connector: 99, Component: topic.Component{Kind: topic.MotionSensor, Number: 99}},
		},
		{
			"tele/f2-E4fd45F654bE/access-control-mode/J4/door-sensors",
			topic.Topic{Root: topic.Tele, MAC: mac, Mode: topic.AccessControlMode, Connector: 4, Component: topic.Component{Kind: topic.DoorSensors}},
		},
		{
			"tele/f2-e4fd45f654be/access-control-mode/4/exit-buttons",
			topic.Topic{Root: topic.Tele, MAC: mac, Mode: topic.AccessControlMode, Connector: 4, Component: topic.Component{Kind: topic.ExitButtons}},
		},
		{
			"cmnd/f2-e4fd45f654be/access-control-mode/J2/reader-1/success",
			topic.Topic{Root: topic.Cmnd, MAC: mac, Mode: topic.AccessControlMode, Connector: 2, Component: topic.Component{Kind: topic.Reader, Number: 1}, Verb: topic.Success},
		},
		{
			"cmnd/f2-e4fd45f654be/access-control-mode/J2/strike-10",
			topic.Topic{Root: topic.Cmnd, MAC: mac, Mode: topic.AccessControlMode, Connector: 2, Component: topic.Component{Kind: topic.Strike, Number: 10}},
		},
		{
			"stat/f2-e4fd45f654be/alarm-mode/J3/siren-2",
			topic.Topic{Root: topic.Stat, MAC: mac, Mode: topic.AlarmMode, Connector: 3, Component: topic.Component{Kind: topic.Siren, Number: 2}},
		},
	} {
		t.Run(tc.topic, func(t *testing.T) {
			got, err := topic.Parse(tc.topic)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, topic, reason string }{
		{"empty", "", topic.ReasonBadLevels},
		{"too few levels", "tele/f2-e4fd45f654be/sensor-mode/J1", topic.ReasonBadLevels},
		{"too many levels", "cmnd/f2-e4fd45f654be/sensor-mode/J1/reader-1/success/x", topic.ReasonBadLevels},
		{"leading slash", "/tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadRoot},
		{"trailing slash", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1/", topic.ReasonBadVerb},
		{"only slashes", "////", topic.ReasonBadRoot},
		{"unknown root", "teles/f2-e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadRoot},
		{"root in capitals", "TELE/f2-e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadRoot},
		{"wildcard root", "+/f2-e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadRoot},
		{"no prefix", "tele/e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadPrefix},
		{"prefix in capitals", "tele/F2-e4fd45f654be/sensor-mode/J1/sensor-1", topic.ReasonBadPrefix},
		{"short MAC", "tele/f2-e4fd45f654b/sensor-mode/J1/sensor-1", topic.ReasonBadMAC},
		{"no MAC", "tele/f2-/sensor-mode/J1/sensor-1", topic.ReasonBadMAC},
		{"MAC with a NUL", "tele/f2-e4fd45f654b\x00/sensor-mode/J1/sensor-1", topic.ReasonBadMAC},
		{"MAC with a dot", "tele/f2-e4fd45f654.b/sensor-mode/J1/sensor-1", topic.ReasonBadMAC},
		{"unknown mode", "tele/f2-e4fd45f654be/light-mode/J1/sensor-1", topic.ReasonBadMode},
		{"wildcard mode", "tele/f2-e4fd45f654be/+/J1/sensor-1", topic.ReasonBadMode},
		{"J0", "tele/f2-e4fd45f654be/sensor-mode/J0/sensor-1", topic.ReasonBadConnector},
		{"J5", "tele/f2-e4fd45f654be/sensor-mode/J5/sensor-1", topic.ReasonBadConnector},
		{"J01", "tele/f2-e4fd45f654be/sensor-mode/J01/sensor-1", topic.ReasonBadConnector},
		{"j1", "tele/f2-e4fd45f654be/sensor-mode/j1/sensor-1", topic.ReasonBadConnector},
		{"J", "tele/f2-e4fd45f654be/sensor-mode/J/sensor-1", topic.ReasonBadConnector},
		{"empty connector", "tele/f2-e4fd45f654be/sensor-mode//sensor-1", topic.ReasonBadConnector},
		{"connector with leading zero", "tele/f2-e4fd45f654be/sensor-mode/01/sensor-1", topic.ReasonBadConnector},
		{"connector 00", "tele/f2-e4fd45f654be/sensor-mode/00/sensor-1", topic.ReasonBadConnector},
		{"connector 100", "tele/f2-e4fd45f654be/sensor-mode/100/sensor-1", topic.ReasonBadConnector},
		{"negative connector", "tele/f2-e4fd45f654be/sensor-mode/-1/sensor-1", topic.ReasonBadConnector},
		{"signed connector", "tele/f2-e4fd45f654be/sensor-mode/+1/sensor-1", topic.ReasonBadConnector},
		{"unknown component", "tele/f2-e4fd45f654be/sensor-mode/J1/lamp-1", topic.ReasonBadComponent},
		{"no number", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor", topic.ReasonBadComponent},
		{"empty number", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-", topic.ReasonBadComponent},
		{"number with leading zeros", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-007", topic.ReasonBadComponent},
		{"number 100", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-100", topic.ReasonBadComponent},
		{"numbered door sensors", "tele/f2-e4fd45f654be/access-control-mode/J1/door-sensors-1", topic.ReasonBadComponent},
		{"door sensor alone", "tele/f2-e4fd45f654be/access-control-mode/J1/door-sensor-1", topic.ReasonBadComponent},
		{"other digits", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-١", topic.ReasonBadComponent},
		{"component with a space", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1 ", topic.ReasonBadComponent},
		{"multi-level wildcard", "tele/f2-e4fd45f654be/sensor-mode/J1/#", topic.ReasonBadComponent},
		{"verb on telemetry", "tele/f2-e4fd45f654be/access-control-mode/J1/reader-1/success", topic.ReasonBadVerb},
		{"verb on a strike", "cmnd/f2-e4fd45f654be/access-control-mode/J1/strike-1/success", topic.ReasonBadVerb},
		{"unknown verb", "cmnd/f2-e4fd45f654be/access-control-mode/J1/reader-1/open", topic.ReasonBadVerb},
		{"huge", "tele/f2-" + strings.Repeat("e", 65000) + "/sensor-mode/J1/sensor-1", topic.ReasonBadMAC},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := topic.Parse(tc.topic)
			requireReason(t, err, tc.reason)
			require.NotContains(t, err.Error(), "e4fd45", "the text must not quote the topic")
		})
	}
}

func TestFindMAC(t *testing.T) {
	for _, tc := range []struct {
		topic string
		want  topic.MAC
		found bool
	}{
		{"tele/f2-E4-FD-45-F6-54-BE/light-mode/J1/lamp-1", "e4fd45f654be", true},
		{"x/f2-e4fd45f654be", "e4fd45f654be", true},
		{"tele/f2-e4fd45f654be/", "e4fd45f654be", true},
		{"tele/e4fd45f654be/sensor-mode", "", false},
		{"f2-e4fd45f654be/tele", "", false},
		{"tele/f2-e4fd45f654be.x/sensor-mode", "", false},
		{"", "", false},
		{"tele", "", false},
		{"tele/f2-", "", false},
	} {
		t.Run(tc.topic, func(t *testing.T) {
			got, found := topic.FindMAC(tc.topic)
			require.Equal(t, tc.found, found)
			require.Equal(t, tc.want, got)
		})
	}
}

// reasons is the whole set. A new reason must be added here and to the operators' documents.
var reasons = []string{
	topic.ReasonBadLevels, topic.ReasonBadRoot, topic.ReasonBadPrefix,
	topic.ReasonBadMAC, topic.ReasonBadMode, topic.ReasonBadConnector,
	topic.ReasonBadComponent, topic.ReasonBadVerb, topic.ReasonBadSubject,
}

func requireReason(t require.TestingT, err error, reason string) {
	var refused *topic.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, reason, refused.Reason)
	require.Equal(t, "topic: "+reason+": "+topic.Details[reason], err.Error(), "the text is fixed: it must not quote what was refused")
	require.NotEmpty(t, topic.Details[reason])
}
