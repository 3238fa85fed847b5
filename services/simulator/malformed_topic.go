package simulator

import "strings"

// What follows the MAC in a topic. Each is wrong in one way.

func (m *maker) wrongLevels() string {
	return m.pick("sensor-mode", "sensor-mode/J1", "sensor-mode/J1/sensor-1/x/y", "a/b/c/d/e/f/g")
}

func (m *maker) wrongMode() string {
	return m.pick("garden-mode", "Sensor-Mode", "sensor_mode", "") + "/J1/sensor-1"
}

func (m *maker) wrongConnector() string {
	return "sensor-mode/" + m.pick("J0", "J5", "J01", "j1", "100", "-1", "1.0", "", "J") + "/sensor-1"
}

func (m *maker) wrongComponent() string {
	return "sensor-mode/J1/" + m.pick("sensor", "sensor-", "sensor-x", "sensor-100", "sensor-007", "thermostat-1", "door-sensors-1", "")
}

func (m *maker) wrongVerb() string {
	return "sensor-mode/J1/sensor-1/" + m.pick("success", "reset", "")
}

// wildcard has characters with a meaning in NATS subjects.
func (m *maker) wildcard() string {
	return m.pick("*/J1/sensor-1", "sensor-mode/>/sensor-1", "sensor-mode/J1/*", "sensor-mode/J1/sensor-1.>", "f2.raw.>/J1/sensor-1")
}

func (m *maker) space() string {
	return m.pick("sensor mode/J1/sensor-1", "sensor-mode/J 1/sensor-1", "sensor-mode/J1/ sensor-1", "sensor-mode/J1/sensor-1 ")
}

func (m *maker) notASCII() string {
	return m.pick("sensor-mode/J1/sensör-1", "sensor-mode/Ｊ１/sensor-1", "sensor-mode/J1/sensor-１", "sensor-mode/J1/\U0001F6AA", "sensor\u200b-mode/J1/sensor-1")
}

func (m *maker) long() string {
	const most = 30_000 // a topic has at most 65,535 bytes
	return "sensor-mode/J1/sensor-1" + strings.Repeat("1", 100+m.IntN(most))
}
