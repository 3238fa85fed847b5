// Package event defines the format of messages between the stages of the mesh: the id of a
// message, its headers on RAW, and the JSON of a message on DECODED.
package event

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Headers of RAW, DECODED and DEAD_LETTER messages, beside the server's own.
const (
	// HeaderReceived is when the bridge received the message, RFC 3339 in UTC.
	HeaderReceived = "F2-Received"
	// HeaderPacketID is the MQTT packet identifier of a message on RAW, in decimal. It is
	// absent for QoS 0.
	HeaderPacketID = "F2-Packet-Id"
	// HeaderTopic is the MQTT topic of a message on RAW as received. It is absent if that is
	// the canonical spelling, topic.Topic.MQTT.
	HeaderTopic = "F2-Topic"
	// HeaderRepeat is "1" on a message on RAW that is a possible repeat of an earlier one with
	// the same topic and bytes (design 5.3).
	HeaderRepeat = "F2-Repeat"
	// HeaderSubject is the subject on RAW of a message on PARKED.
	HeaderSubject = "F2-Subject"
	// HeaderReplace is "1" on a message on DECODED whose values replace those in the tables.
	HeaderReplace = "F2-Replace"
	// HeaderDeviceTime is Decoded.DeviceTime on a message of LATEST, RFC 3339 in UTC.
	HeaderDeviceTime = "F2-Device-Time"
	// HeaderReplayed is on a message on RAW that an operator replayed from DEAD_LETTER: its
	// sequence there.
	HeaderReplayed = "F2-Replayed"
	// HeaderID is the event's ID on messages whose body does not contain it.
	HeaderID = "F2-Event-Id"
)

// Decoded is one decoded message of a device: either the Values of a sensor's frame, which
// belong to the sensor device, or the State of another component. It contains everything
// that a consumer needs, so that no consumer needs metadata.
//
// A message on DECODED is a subject, f2.decoded.<mac>.<mode>.<connector>.<component>, and
// JSON without what the subject says:
//
//	{"id":"18eccba0d273de00000000000012d687","time":"2026-11-24T10:00:00Z","delay":0.112233,"device":[1002,"Hall north"],
//	 "controller":101,"metadata":"84222325","points":[[1,"Temperature",25.52,"°C"],[2,"Firmware","F2S-2.14"]]}
//	{"id":"18eccba0d273de00000000000012d688","time":"2026-11-24T10:00:00Z","delay":0.112233,"device":[101],
//	 "metadata":"84222325","state":{"door-sensor-1":true}}
//
// delay is how many seconds after time the bridge received the message; it is left out if it is
// 0. root is left out if it is tele. device is the id and the name of the sensor device, or the
// id of the controller, whose event it is. Earlier versions wrote another type, so their writers
// make dead letters of these messages rather than no rows. Each of points is the id, the label, the
// number or text, and the unit, if there is one, of a data point. The other names are those of the fields: device_time, repeat, verb. LATEST has the
// same JSON under keys that say the same as the subject.
type Decoded struct {
	ID       ID
	Time     time.Time // of the device, or Received if the device sent none or an implausible one
	Received time.Time // by the bridge
	// DeviceTime is the device's time if it is implausible, else zero.
	DeviceTime time.Time
	// Repeat is set if the message is a possible repeat of an earlier one.
	Repeat          bool
	Root            string // tele, stat or cmnd
	MAC             string // of the controller, 12 lower-case hex digits
	ControllerID    int32
	Mode            string
	Connector       int
	Component       string
	Verb            string
	DeviceID        int32  // of the sensor device
	Device          string // its name
	MetadataVersion string
	Values          []DataPoint
	State           jsontext.Value
}

// DataPoint is one data point of a frame, in engineering units.
type DataPoint struct {
	DataPointID int32
	Label       string
	Number      float64
	Text        *string // of ASCII data points, instead of Number
	Unit        string
}

// AppendJSON appends d to b as the JSON of a message on DECODED. It does not use a JSON library,
// because it runs once for every message. ParseDecoded is its inverse.
func (d *Decoded) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, d.ID.String()...)
	b = append(b, `","time":"`...)
	b = d.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if delay := d.Received.Sub(d.Time); delay != 0 {
		b = append(b, `,"delay":`...)
		b = appendSeconds(b, delay)
	}
	if !d.DeviceTime.IsZero() {
		b = append(b, `,"device_time":"`...)
		b = d.DeviceTime.UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	if d.Repeat {
		b = append(b, `,"repeat":true`...)
	}
	if d.Root != string(topic.Tele) {
		b = appendString(append(b, `,"root":`...), d.Root)
	}
	if d.Verb != "" {
		b = appendString(append(b, `,"verb":`...), d.Verb)
	}
	b = append(b, `,"device":[`...)
	if d.DeviceID != 0 {
		b = strconv.AppendInt(b, int64(d.DeviceID), 10)
		b = appendString(append(b, ','), d.Device)
		b = append(b, `],"controller":`...)
	}
	b = strconv.AppendInt(b, int64(d.ControllerID), 10)
	if d.DeviceID == 0 {
		b = append(b, ']')
	}
	if d.MetadataVersion != "" {
		b = appendString(append(b, `,"metadata":`...), d.MetadataVersion)
	}
	for i := range d.Values {
		if i == 0 {
			b = append(b, `,"points":[`...)
		} else {
			b = append(b, ',')
		}
		b = d.Values[i].appendJSON(b)
	}
	if len(d.Values) > 0 {
		b = append(b, ']')
	}
	if len(d.State) > 0 {
		b = append(b, `,"state":`...)
		b = append(b, d.State...)
	}
	return append(b, '}')
}

func (v *DataPoint) appendJSON(b []byte) []byte {
	b = append(b, '[')
	b = strconv.AppendInt(b, int64(v.DataPointID), 10)
	b = appendString(append(b, ','), v.Label)
	b = append(b, ',')
	if v.Text != nil {
		b = appendString(b, *v.Text)
	} else {
		b = appendNumber(b, v.Number)
	}
	if v.Unit != "" {
		b = appendString(append(b, ','), v.Unit)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s) // invalid UTF-8 would become U+FFFD; callers have checked s
	return b
}

// appendSeconds writes d exactly, as a decimal.
func appendSeconds(b []byte, d time.Duration) []byte {
	if d < 0 {
		b = append(b, '-')
	}
	whole, rest := int64(d/time.Second), int64(d%time.Second)
	b = strconv.AppendInt(b, max(whole, -whole), 10)
	rest = max(rest, -rest)
	if rest != 0 {
		b = append(b, '.')
	}
	for unit := int64(time.Second / 10); rest != 0; unit /= 10 {
		b = append(b, '0'+byte(rest/unit)) //nolint:gosec // a digit
		rest %= unit
	}
	return b
}

// appendNumber writes the shortest decimal that reads back as the same float64.
func appendNumber(b []byte, f float64) []byte {
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, 64)
}

// Format returns the value with its unit, for people.
func (v *DataPoint) Format() string {
	text := strconv.FormatFloat(v.Number, 'f', -1, 64)
	if v.Text != nil {
		text = strconv.Quote(*v.Text)
	}
	if v.Unit != "" {
		text += " " + v.Unit
	}
	return text
}
