package payload_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// on returns the topic of a component, such as "tele/sensor-1".
func on(t require.TestingT, short string) topic.Topic {
	root, rest, _ := strings.Cut(short, "/")
	parsed, err := topic.Parse(root + "/f2-e4fd45f654be/sensor-mode/J1/" + rest)
	require.NoError(t, err)
	return parsed
}

func TestBounds(t *testing.T) {
	for _, tc := range []struct{ name, topic, body, reason string }{
		{"empty telemetry", "tele/sensor-1", "", payload.ReasonEmptyPayload},
		{"blank status", "stat/strike-1", " \r\n\t", payload.ReasonEmptyPayload},
		{"one byte too many", "tele/strike-1", `{"status":true}` + strings.Repeat(" ", payload.DefaultMaxSize-14), payload.ReasonTooLarge},
		{"blank but too large", "cmnd/strike-1", strings.Repeat(" ", payload.DefaultMaxSize+1), payload.ReasonTooLarge},
		{"invalid UTF-8 in a string", "tele/sensor-1", "{\"temperature\xff\":1}", payload.ReasonBadUTF8},
		{"invalid UTF-8 outside", "tele/sensor-1", "\xfe\xff", payload.ReasonBadUTF8},
		{"surrogate half", "tele/strike-1", `{"status":true,"a":"\ud800"}`, payload.ReasonBadJSON},
		{"NUL", "tele/sensor-1", "{\"temperature\":1}\x00", payload.ReasonBadJSON},
		{"NUL in a string", "tele/strike-1", "{\"status\":true,\"a\":\"\x00\"}", payload.ReasonBadJSON},
		{"byte order mark", "tele/sensor-1", "\xef\xbb\xbf{\"temperature\":1}", payload.ReasonBadJSON},
		{"not JSON", "tele/sensor-1", "23.5 C", payload.ReasonNotAnObject},
		{"hex alone", "tele/sensor-1", "F9 0C 09", payload.ReasonBadJSON},
		{"truncated", "tele/sensor-1", `{"temperature":1`, payload.ReasonBadJSON},
		{"truncated in a name", "tele/sensor-1", `{"temp`, payload.ReasonBadJSON},
		{"no value", "tele/sensor-1", `{"temperature":}`, payload.ReasonBadJSON},
		{"trailing comma", "tele/sensor-1", `{"temperature":1,}`, payload.ReasonBadJSON},
		{"unquoted name", "tele/sensor-1", `{temperature:1}`, payload.ReasonBadJSON},
		{"wrong bracket", "tele/sensor-1", `{"temperature":1]`, payload.ReasonBadJSON},
		{"closing bracket", "tele/sensor-1", `]`, payload.ReasonBadJSON},
		{"leading zero", "tele/sensor-1", `{"temperature":01}`, payload.ReasonBadJSON},
		{"NaN", "tele/sensor-1", `{"temperature":NaN}`, payload.ReasonBadJSON},
		{"two values", "tele/sensor-1", `{"temperature":1}{"temperature":2}`, payload.ReasonBadJSON},
		{"something behind", "tele/strike-1", `{"status":true}x`, payload.ReasonBadJSON},
		{"two command values", "cmnd/siren-1", `1 1`, payload.ReasonBadJSON},
		{"array", "tele/sensor-1", `[1]`, payload.ReasonNotAnObject},
		{"null", "tele/strike-1", `null`, payload.ReasonNotAnObject},
		{"string", "tele/reader-1", `"x"`, payload.ReasonNotAnObject},
		{"number", "cmnd/strike-1", `1`, payload.ReasonNotAnObject},
		{"duplicate name", "tele/strike-1", `{"status":true,"status":true}`, payload.ReasonDuplicateName},
		{"duplicate timestamp", "tele/sensor-1", `{"timestamp":"2026-01-01 00:00:00","timestamp":"2026-01-01 00:00:00","a":1}`, payload.ReasonDuplicateName},
		{"duplicate by escape", "tele/strike-1", `{"status":true,"stat\u0075s":true}`, payload.ReasonDuplicateName},
		{"duplicate nested", "tele/strike-1", `{"status":true,"a":{"b":1,"b":2}}`, payload.ReasonDuplicateName},
		{"empty name", "tele/sensor-1", `{"":1}`, payload.ReasonBadField},
		{"long name", "tele/sensor-1", `{"` + strings.Repeat("a", payload.MaxNameLength+1) + `":1}`, payload.ReasonBadField},
		{"many members", "tele/sensor-1", manyMembers(payload.MaxMembers + 1), payload.ReasonTooManyMembers},
		{"very deep", "tele/strike-1", nested(20000), payload.ReasonBadJSON},
		{"very deep sensor", "tele/sensor-1", `{"a":` + strings.Repeat("[", 30000), payload.ReasonBadJSON},
		{"very deep alone", "tele/sensor-1", strings.Repeat("[", 30000), payload.ReasonNotAnObject},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			requireReason(t, err, tc.reason)
			require.Zero(t, got)
		})
	}
}

// TestBoundsHold is the control of the test above: bodies just within the limits are accepted.
func TestBoundsHold(t *testing.T) {
	for _, tc := range []struct{ name, topic, body string }{
		{"largest", "tele/strike-1", `{"status":true}` + strings.Repeat(" ", payload.DefaultMaxSize-15)},
		{"longest name", "tele/sensor-1", `{"` + strings.Repeat("a", payload.MaxNameLength) + `":1}`},
		{"most members", "tele/sensor-1", manyMembers(payload.MaxMembers)},
		{"most elements", "tele/strike-1", `{"status":true,"a":[0` + strings.Repeat(",0", payload.MaxMembers-1) + `]}`},
		{"deepest", "tele/strike-1", nested(payload.MaxDepth - 1)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
			require.NoError(t, err)
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`,"` + strings.Repeat("x", i/26) + string(rune('a'+i%26)) + `":1`)
	}
	return "{" + b.String()[1:] + "}"
}

// nested returns an event with n nested arrays.
func nested(n int) string {
	return `{"status":true,"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
}

func TestMaxSize(t *testing.T) {
	p := payload.Parser{MaxSize: 15}
	_, err := p.Parse(on(t, "tele/strike-1"), []byte(`{"status":true}`))
	require.NoError(t, err)
	_, err = p.Parse(on(t, "tele/strike-1"), []byte(`{"status":false}`))
	requireReason(t, err, payload.ReasonTooLarge)
}

func TestUnknownComponent(t *testing.T) {
	_, err := new(payload.Parser).Parse(topic.Topic{Root: topic.Tele}, []byte(`{}`))
	requireReason(t, err, payload.ReasonBadField)
}

// TestConcurrent parses different bodies with one Parser at the same time: no result mixes
// with another.
func TestConcurrent(t *testing.T) {
	var p payload.Parser
	var group sync.WaitGroup
	for i := range byte(8) {
		group.Go(func() {
			digit := string('0' + rune(i))
			sensor := []byte(`{"timestamp":"2026-01-01 00:00:0` + digit + `","data":"0` + digit + `"}`)
			reader := []byte(`{"data":"\u00e9` + digit + `"}`)
			kept := bytes.Clone(sensor)
			for range 500 {
				got, err := p.Parse(on(t, "tele/sensor-1"), sensor)
				if err != nil || got.Time.Second() != int(i) || !bytes.Equal(got.Frame, []byte{i}) {
					t.Errorf("sensor %d: %v %v", i, got, err)
				}
				got, err = p.Parse(on(t, "tele/reader-1"), reader)
				if err != nil || string(got.State) != string(reader) {
					t.Errorf("reader %d: %s %v", i, got.State, err)
				}
				_, _ = p.Parse(on(t, "tele/sensor-1"), sensor[:len(sensor)-int(i)-1])
			}
			if !bytes.Equal(kept, sensor) {
				t.Errorf("the body of %d changed", i)
			}
		})
	}
	group.Wait()
}

// TestResultIsOwn: a result does not share memory with the body.
func TestResultIsOwn(t *testing.T) {
	var p payload.Parser
	for _, tc := range []struct{ topic, body string }{
		{"tele/sensor-1", `{"data":"01 03"}`},
		{"tele/sensor-1", `{"temperature":23.5}`},
		{"tele/reader-1", `{"data":"abc","more":{"a":[1]}}`},
	} {
		body := []byte(tc.body)
		got, err := p.Parse(on(t, tc.topic), body)
		require.NoError(t, err)
		copy(body, bytes.Repeat([]byte("#"), len(body)))
		want, err := new(payload.Parser).Parse(on(t, tc.topic), []byte(tc.body))
		require.NoError(t, err)
		_, _ = p.Parse(on(t, tc.topic), []byte(`{"other":9999,"data":"FFFF"}`))
		require.Equal(t, want, got)
	}
}

func date(year, month, day, hour, minute, second, nanosecond int) time.Time {
	return time.Date(year, time.Month(month), day, hour, minute, second, nanosecond, time.UTC)
}

// reasons is the whole set. A new reason must be added here and to the operators' documents.
var reasons = []string{
	payload.ReasonTooLarge, payload.ReasonEmptyPayload, payload.ReasonBadUTF8, payload.ReasonBadJSON,
	payload.ReasonDuplicateName, payload.ReasonNotAnObject, payload.ReasonTooDeep, payload.ReasonTooManyMembers,
	payload.ReasonBadTimestamp, payload.ReasonMissingData, payload.ReasonMissingField, payload.ReasonBadHex,
	payload.ReasonBadField, payload.ReasonBadNumber, payload.ReasonNULCharacter, payload.ReasonDataTooLong,
	payload.ReasonDataAndNumbers, payload.ReasonUnknownCommand,
}

func requireReason(t require.TestingT, err error, reason string) {
	var refused *payload.Error
	require.ErrorAs(t, err, &refused)
	require.Equal(t, reason, refused.Reason)
	require.NotEmpty(t, refused.Detail)
	require.Equal(t, refused.Detail, err.Error())
}
