package event

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// ParseDecoded parses a message on DECODED, of this or an earlier version of f2mesh, into d and
// reuses the memory of d.Values. The strings of d share the memory of subject and of one copy of
// data. If the JSON is valid but the subject is not, the error is a *topic.Error.
func ParseDecoded(subject string, data []byte, d *Decoded) error {
	values := d.Values[:0]
	clear(values[:cap(values)])
	*d = Decoded{Values: values}
	if d.parseOwn(string(data)) {
		return d.setPlace(subject)
	}
	*d = Decoded{Values: values}
	return d.parseAny(subject, data)
}

// setPlace takes from the subject what the JSON does not say.
func (d *Decoded) setPlace(subject string) error {
	t, err := topic.ParseSubject(subject)
	if err != nil {
		return fmt.Errorf("subject of a DECODED message: %w", err)
	}
	d.MAC, d.Mode, d.Connector = string(t.MAC), string(t.Mode), t.Connector
	d.Component = subject[strings.LastIndexByte(subject, '.')+1:]
	return nil
}

// parseOwn parses the result of AppendJSON: the same names in the same order, without white
// space or escapes. It returns false for other JSON, which needs a JSON parser. If it returns
// true, its result is that of a JSON parser, in a fraction of the time.
func (d *Decoded) parseOwn(data string) bool {
	r := reader{rest: data}
	r.expect(`{"id":"`)
	r.id(&d.ID)
	r.expect(`,"time":"`)
	d.Time = r.time()
	d.Received = d.Time
	if r.skip(`,"delay":`) {
		d.Received = d.Time.Add(r.seconds())
	}
	if r.skip(`,"device_time":"`) {
		d.DeviceTime = r.time()
	}
	d.Repeat = r.skip(`,"repeat":true`)
	d.Root = string(topic.Tele)
	if r.skip(`,"root":"`) {
		d.Root = r.text()
	}
	if r.skip(`,"verb":"`) {
		d.Verb = r.text()
	}
	r.expect(`,"device":[`)
	d.ControllerID = int32(r.integer(32)) //nolint:gosec // of 32 bits
	if r.skip(`,"`) {
		d.DeviceID, d.Device = d.ControllerID, r.text()
		r.expect(`],"controller":`)
		d.ControllerID = int32(r.integer(32)) //nolint:gosec // of 32 bits
	} else {
		r.expect("]")
	}
	if r.skip(`,"metadata":"`) {
		d.MetadataVersion = r.text()
	}
	if r.skip(`,"points":[`) {
		for first := true; !r.failed && (first || r.skip(",")); first = false {
			d.Values = append(d.Values, r.point())
		}
		r.expect("]")
	}
	if r.skip(`,"state":`) {
		d.State = r.object()
	}
	r.expect("}")
	return !r.failed && r.rest == ""
}

// reader parses data from the front. failed is set when something is not as expected; results
// are meaningless then.
type reader struct {
	rest   string
	failed bool
}

// skip removes s from the front, if it is there.
func (r *reader) skip(s string) bool {
	rest, ok := strings.CutPrefix(r.rest, s)
	r.rest = rest
	return ok
}

func (r *reader) expect(s string) {
	if !r.skip(s) {
		r.failed = true
	}
}

// text removes and returns the rest of a string, up to its closing quote.
func (r *reader) text() string {
	ascii := true
	for i := range len(r.rest) {
		switch c := r.rest[i]; {
		case c == '"':
			s := r.rest[:i]
			r.rest = r.rest[i+1:]
			r.failed = r.failed || !ascii && !utf8.ValidString(s)
			return s
		case c == '\\' || c < ' ':
			r.failed = true
			return ""
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	r.failed = true
	return ""
}

func (r *reader) id(id *ID) {
	s := r.text()
	if len(s) != 2*len(id) {
		r.failed = true
		return
	}
	_, err := hex.Decode(id[:], []byte(s))
	r.failed = r.failed || err != nil
}

func (r *reader) time() time.Time {
	s := r.text()
	// UnmarshalText also accepts an hour of one digit, a comma and odd offsets.
	const second = len("2006-01-02T15:04:05")
	if len(s) <= second || s[second-6] != ':' || s[second] == ',' || !strings.HasSuffix(s, "Z") {
		r.failed = true
		return time.Time{}
	}
	var t time.Time
	err := t.UnmarshalText([]byte(s))
	r.failed = r.failed || err != nil
	return t
}

// number removes and returns -?(0|[1-9][0-9]*)(\.[0-9]+)? from the front.
func (r *reader) number() string {
	start := r.rest
	r.skip("-")
	if !r.skip("0") {
		r.digits()
	}
	if r.skip(".") {
		r.digits()
	}
	return start[:len(start)-len(r.rest)]
}

// digits removes one or more digits.
func (r *reader) digits() {
	n := 0
	for n < len(r.rest) && '0' <= r.rest[n] && r.rest[n] <= '9' {
		n++
	}
	r.failed = r.failed || n == 0
	r.rest = r.rest[n:]
}

func (r *reader) integer(bits int) int64 {
	n, err := strconv.ParseInt(r.number(), 10, bits)
	r.failed = r.failed || err != nil
	return n
}

// seconds removes a decimal and returns it as a duration.
func (r *reader) seconds() time.Duration {
	d, err := time.ParseDuration(r.number() + "s")
	r.failed = r.failed || err != nil
	return d
}

func (r *reader) point() (v DataPoint) {
	r.expect("[")
	v.DataPointID = int32(r.integer(32)) //nolint:gosec // of 32 bits
	r.expect(`,"`)
	v.Label = r.text()
	r.expect(",")
	if r.skip(`"`) {
		text := r.text()
		v.Text = &text
	} else {
		number, err := strconv.ParseFloat(r.number(), 64)
		r.failed = r.failed || err != nil
		v.Number = number
	}
	if r.skip(`,"`) {
		v.Unit = r.text()
	}
	r.expect("]")
	return v
}

// object removes and returns everything except the last byte, if that is a JSON object.
func (r *reader) object() jsontext.Value {
	object := jsontext.Value(strings.TrimSuffix(r.rest, "}"))
	n := len(object)
	if n < 2 || object[0] != '{' || object[n-1] != '}' || !object.IsValid() {
		r.failed = true
		return nil
	}
	r.rest = r.rest[n:]
	return object
}
