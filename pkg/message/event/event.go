// Package event defines the format of messages between the stages of the mesh: the id of a
// message, its headers on RAW, and the JSON of a message on DECODED.
package event

import (
	"math"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
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
type Decoded struct {
	ID       ID        `json:"id"`
	Time     time.Time `json:"time"`     // of the device, or Received if the device sent none or an implausible one
	Received time.Time `json:"received"` // by the bridge
	// DeviceTime is the device's time if it is implausible, else zero.
	DeviceTime time.Time `json:"device_time,omitzero"`
	// Repeat is set if the message is a possible repeat of an earlier one.
	Repeat          bool           `json:"repeat,omitempty"`
	Root            string         `json:"root"` // tele, stat or cmnd
	MAC             string         `json:"mac"`  // of the controller, 12 lower-case hex digits
	ControllerID    int32          `json:"controller_id"`
	Mode            string         `json:"mode"`
	Connector       int            `json:"connector"`
	Component       string         `json:"component"`
	Verb            string         `json:"verb,omitempty"`
	DeviceID        int32          `json:"device_id,omitempty"` // of the sensor device
	Device          string         `json:"device,omitempty"`    // its name
	MetadataVersion string         `json:"metadata_version,omitempty"`
	Values          []DataPoint    `json:"values,omitempty"`
	State           jsontext.Value `json:"state,omitempty"`
}

// DataPoint is one data point of a frame, in engineering units.
type DataPoint struct {
	DataPointID int32   `json:"datapoint_id"`
	Label       string  `json:"label"`
	Number      float64 `json:"value"`
	Text        *string `json:"text,omitempty"` // of ASCII data points, instead of Number
	Unit        string  `json:"unit,omitempty"`
}

// AppendJSON appends d as one JSON object to b. It does not use a JSON library, because it runs
// once for every message. ParseDecoded is its inverse.
func (d *Decoded) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, d.ID.String()...)
	b = append(b, `","time":"`...)
	b = d.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","received":"`...)
	b = d.Received.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if !d.DeviceTime.IsZero() {
		b = append(b, `,"device_time":"`...)
		b = d.DeviceTime.UTC().AppendFormat(b, time.RFC3339Nano)
		b = append(b, '"')
	}
	if d.Repeat {
		b = append(b, `,"repeat":true`...)
	}
	b = appendString(b, "root", d.Root)
	b = appendString(b, "mac", d.MAC)
	b = appendInt(b, "controller_id", int(d.ControllerID))
	b = appendString(b, "mode", d.Mode)
	b = appendInt(b, "connector", d.Connector)
	b = appendString(b, "component", d.Component)
	if d.Verb != "" {
		b = appendString(b, "verb", d.Verb)
	}
	if d.DeviceID != 0 {
		b = appendInt(b, "device_id", int(d.DeviceID))
		b = appendString(b, "device", d.Device)
	}
	if d.MetadataVersion != "" {
		b = appendString(b, "metadata_version", d.MetadataVersion)
	}
	if len(d.Values) > 0 {
		b = append(b, `,"values":[`...)
		for i := range d.Values {
			if i > 0 {
				b = append(b, ',')
			}
			b = d.Values[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	if len(d.State) > 0 {
		b = append(b, `,"state":`...)
		b = append(b, d.State...)
	}
	return append(b, '}')
}

func (v *DataPoint) appendJSON(b []byte) []byte {
	b = append(b, `{"datapoint_id":`...)
	b = strconv.AppendInt(b, int64(v.DataPointID), 10)
	b = appendString(b, "label", v.Label)
	if v.Text != nil {
		b = appendString(b, "text", *v.Text)
	} else {
		b = append(b, `,"value":`...)
		b = appendNumber(b, v.Number)
	}
	if v.Unit != "" {
		b = appendString(b, "unit", v.Unit)
	}
	return append(b, '}')
}

func appendString(b []byte, name, s string) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	b, _ = jsontext.AppendQuote(b, s) // invalid UTF-8 would become U+FFFD; callers have checked s
	return b
}

func appendInt(b []byte, name string, n int) []byte {
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return strconv.AppendInt(b, int64(n), 10)
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
