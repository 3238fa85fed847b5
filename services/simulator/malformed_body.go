package simulator

import (
	"fmt"
	"strings"
)

// Payloads. Each is wrong in one way and has a unique serial number.

func (m *maker) truncatedJSON() string {
	whole := `{"id":"` + m.serial + `","timestamp":"` + m.timestamp() + `","data":"01 03"}`
	return whole[:len(whole)-1-m.IntN(8)]
}

func (m *maker) trailingJSON() string {
	return m.sound() + m.pick("}", " x", "{}", ",", " null")
}

func (m *maker) notAnObject() string {
	before, after, _ := strings.Cut(m.pick(`["|"]`, `"|"`, `[{"data":"01"},"|"]`), "|")
	return before + m.serial + after
}

func (m *maker) duplicateName() string {
	return `{"timestamp":"` + m.timestamp() + `","data":"01 03 00","data":"01 03 01"}`
}

// deepJSON exhausts the stack of a parser that recurses without a limit.
func (m *maker) deepJSON() string {
	depth := 1000 + m.IntN(20_000)
	return `{"id":"` + m.serial + `","data":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + `}`
}

// binary is a bare frame without JSON.
func (m *maker) binary() string {
	b := []byte{0x01, 0x03, 0x0C}
	for range 12 {
		b = append(b, byte(m.Uint32())) //nolint:gosec // bounded, or its low byte is what is meant
	}
	return string(b) + m.serial
}

func (m *maker) invalidUTF8() string {
	bad := m.pick("\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82")
	return `{"timestamp":"` + m.timestamp() + `","data":"` + bad + `"}`
}

func (m *maker) nul() string {
	raw, escaped := "\x00", `\u0000`
	return m.pick(raw+m.serial, `{"id":"`+m.serial+raw+`"}`, `{"timestamp":"`+m.timestamp()+`","data":"01`+escaped+`"}`)
}

func (m *maker) wrongTimestamp() string {
	at := m.pick("yesterday", "2026-13-01 00:00:00", "2026-02-30 12:00:00", "0001-01-01 00:00:00", "9999-12-31 23:59:59", "1767225600", "")
	return `{"timestamp":"` + at + `","temperature":` + m.unique() + `}`
}

// unique is a number that no other message of the seed has.
func (m *maker) unique() string {
	_, digits, _ := strings.Cut(m.serial, "-")
	return fmt.Sprintf("%d.%s1", m.IntN(1000), digits)
}

func (m *maker) wrongType() string {
	value := m.pick(`true`, `{"value":1}`, `[21.5]`, `"warm"`)
	return `{"timestamp":"` + m.timestamp() + `","temperature":` + value + `}`
}

func (m *maker) missingData() string {
	return `{"timestamp":"` + m.timestamp() + m.pick(`"}`, `","data":""}`)
}

func (m *maker) wrongHex() string {
	data := m.pick("01 03 0", "0x01 0x3", "01 03 ZZ", "hello", "1 3 C", "01.03.0C")
	return `{"timestamp":"` + m.timestamp() + `","data":"` + data + `"}`
}

// truncatedFrame ends before the first data point.
func (m *maker) truncatedFrame() string {
	return `{"timestamp":"` + m.timestamp() + `","data":"` + m.pick("01", "01 03", "01 03 0C", "01 83 02") + `"}`
}

// huge is above the limit of 64 KiB.
func (m *maker) huge() string {
	const limit, most = 64 << 10, 100 << 10
	return `{"timestamp":"` + m.timestamp() + `","data":"` + strings.Repeat("01", limit/2+m.IntN(most/2)) + `"}`
}

func (m *maker) wrongStatus() (name, body string) {
	name = m.topic(m.pick("access-control-mode/J3/strike-1", "alarm-mode/J4/siren-1", "alarm-mode/J4/motion-sensor-1"))
	return name, `{"timestamp":"` + m.timestamp() + `"` + m.pick(`}`, `,"status":"maybe"}`, `,"status":1}`, `,"status":null}`)
}

func (m *maker) wrongInput() (name, body string) {
	name = m.topic("access-control-mode/J3/door-sensors")
	return name, `{"timestamp":"` + m.timestamp() + `"` + m.pick(`}`, `,"door-sensor-1":"open"}`, `,"door-sensor-x":true}`, `,"window-1":true}`)
}

// longToken is above a reader's limit of 1,023 characters.
func (m *maker) longToken() (name, body string) {
	data := strings.Repeat("A", 1024+m.IntN(2000))
	return m.topic("access-control-mode/J3/reader-1"), `{"timestamp":"` + m.timestamp() + `","data":"` + data + `"}`
}

// unknownSensor is valid, but the sensor does not exist.
func (m *maker) unknownSensor() (name, body string) {
	return m.topic("sensor-mode/J1/sensor-" + m.pick("0", "50", "98")), m.sound()
}
