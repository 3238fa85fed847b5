package event

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// document is the JSON of a message on DECODED. Earlier versions wrote into it what the subject
// says, too: they always wrote "mac", which this version never does.
type document struct {
	ID         ID             `json:"id"`
	Time       time.Time      `json:"time"`
	DeviceTime time.Time      `json:"device_time"`
	Repeat     bool           `json:"repeat"`
	Root       string         `json:"root"`
	Verb       string         `json:"verb"`
	State      jsontext.Value `json:"state"`

	Delay      delay   `json:"delay"`
	Device     device  `json:"device"` // of an earlier version: its name
	Controller int32   `json:"controller"`
	Metadata   string  `json:"metadata"`
	Points     []point `json:"points"`

	earlier
}

// earlier is the part of a document that only earlier versions wrote.
type earlier struct {
	Received        time.Time `json:"received"`
	MAC             string    `json:"mac"`
	ControllerID    int32     `json:"controller_id"`
	Mode            string    `json:"mode"`
	Connector       int       `json:"connector"`
	Component       string    `json:"component"`
	DeviceID        int32     `json:"device_id"`
	MetadataVersion string    `json:"metadata_version"`
	Values          []struct {
		DataPointID int32   `json:"datapoint_id"`
		Label       string  `json:"label"`
		Number      float64 `json:"value"`
		Text        *string `json:"text"`
		Unit        string  `json:"unit"`
	} `json:"values"`
}

// parseAny parses any JSON that is a message on DECODED.
func (d *Decoded) parseAny(subject string, data []byte) error {
	j := document{Root: string(topic.Tele)}
	err := json.Unmarshal(data, &j)
	d.ID = j.ID // also of a message that is damaged further on
	if err != nil {
		return err
	}
	d.Time, d.DeviceTime, d.Repeat, d.Root, d.Verb, d.State = j.Time, j.DeviceTime, j.Repeat, j.Root, j.Verb, j.State
	if j.MAC != "" {
		d.Received, d.MAC, d.ControllerID = j.Received, j.MAC, j.ControllerID
		d.Mode, d.Connector, d.Component = j.Mode, j.Connector, j.Component
		d.DeviceID, d.Device, d.MetadataVersion = j.DeviceID, j.Device.name, j.MetadataVersion
		for _, v := range j.Values {
			d.Values = append(d.Values, DataPoint(v))
		}
		return nil
	}
	d.Received, d.ControllerID, d.MetadataVersion = j.Time.Add(time.Duration(j.Delay)), j.Device.id, j.Metadata
	if j.Device.named {
		d.DeviceID, d.Device, d.ControllerID = j.Device.id, j.Device.name, j.Controller
	}
	for _, v := range j.Points {
		d.Values = append(d.Values, DataPoint(v))
	}
	return d.setPlace(subject)
}

// delay is a number of seconds.
type delay time.Duration

var errDelay = errors.New("a delay must be a decimal number of seconds")

// UnmarshalJSON parses the result of appendSeconds.
func (d *delay) UnmarshalJSON(data []byte) error {
	r := reader{rest: string(data)}
	*d = delay(r.seconds())
	if r.failed || r.rest != "" {
		return errDelay
	}
	return nil
}

// device is an array of an id and, for a sensor device, a name; of an earlier version a name.
type device struct {
	id    int32
	name  string
	named bool
}

// UnmarshalJSON parses the array or the name.
func (d *device) UnmarshalJSON(data []byte) error {
	if jsontext.Value(data).Kind() == '"' {
		return json.Unmarshal(data, &d.name)
	}
	var name *string
	if err := parseArray(data, 1, &d.id, &name); err != nil || name == nil {
		return err
	}
	d.name, d.named = *name, true
	return nil
}

// point is an array of the fields of a DataPoint.
type point DataPoint

// UnmarshalJSON parses the result of DataPoint.appendJSON.
func (p *point) UnmarshalJSON(data []byte) error {
	return parseArray(data, 3, &p.DataPointID, &p.Label, (*value)(p), &p.Unit)
}

// value is the value of a DataPoint, a number or a text.
type value DataPoint

// UnmarshalJSON parses the value.
func (v *value) UnmarshalJSON(data []byte) error {
	if jsontext.Value(data).Kind() == '"' {
		return json.Unmarshal(data, &v.Text)
	}
	return json.Unmarshal(data, &v.Number)
}

var errArray = errors.New("a wrong number of elements, or null among them")

// parseArray parses an array into its elements, of which the first ones, at least, must be
// there.
func parseArray(data []byte, least int, into ...any) error {
	var elements []jsontext.Value
	if err := json.Unmarshal(data, &elements); err != nil {
		return err
	}
	if len(elements) < least || len(elements) > len(into) {
		return errArray
	}
	for i, element := range elements {
		if element.Kind() == 'n' {
			return errArray
		}
		if err := json.Unmarshal(element, into[i]); err != nil {
			return err
		}
	}
	return nil
}
