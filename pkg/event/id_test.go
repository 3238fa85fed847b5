package event_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/event"
)

func TestNewID(t *testing.T) {
	t.Parallel()
	const place = "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1"
	stamped, bare := []byte(`{"timestamp":"2026-11-24 10:00:00","data":"00"}`), []byte(`{"status":true}`)
	id := event.NewID(place, stamped, moment)
	// This is on disk in RAW and in device_event: changing it makes every
	// redelivery during an upgrade a second event.
	assert.Equal(t, "50e2afcda0ba12b0d894e30826090db7", id.String())
	assert.Equal(t, id, event.NewID(place, bytes.Clone(stamped), moment.Add(time.Hour)), "a stamped body is the same event whenever it comes")
	assert.NotEqual(t, id, event.NewID(place+"0", stamped, moment), "another place")
	assert.NotEqual(t, id, event.NewID(place, append([]byte(" "), stamped...), moment), "another body")
	assert.Equal(t, event.NewID(place, bare, moment), event.NewID(place, bare, moment)) //nolint:testifylint // what follows does not depend on it
	assert.NotEqual(t, event.NewID(place, bare, moment), event.NewID(place, bare, moment.Add(1)), "a bare body is another event a nanosecond later")
	assert.NotEqual(t, event.NewID("a", []byte("b"), moment), event.NewID("ab", nil, moment), "the border counts")
	assert.Equal(t, event.NewID(place, bytes.Repeat([]byte("x"), 4096), moment), event.NewID(place, bytes.Repeat([]byte("x"), 4096), moment), "longer than the stack's buffer") //nolint:testifylint // what follows does not depend on it
}

func TestIDsDiffer(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) (string, []byte, time.Time) {
			return rapid.StringMatching(`[a-z.]{0,8}`).Draw(t, name+" place"), []byte(rapid.SampledFrom([]string{
				``, `{}`, `{"timestamp":"x"}`, `{"timestamp":"y"}`, `"timestamp"`, "\x00",
			}).Draw(t, name+" body")), time.Unix(0, rapid.Int64Range(0, 2).Draw(t, name+" received"))
		}
		p1, b1, r1 := draw("first")
		p2, b2, r2 := draw("second")
		same := p1 == p2 && bytes.Equal(b1, b2) && (event.HasTimestamp(b1) || r1.Equal(r2))
		require.Equal(t, same, event.NewID(p1, b1, r1) == event.NewID(p2, b2, r2))
	})
}

func TestIDText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		id := event.ID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		got, err := event.ParseID(id.String())
		require.NoError(t, err)
		require.Equal(t, id, got)
		marshaled, err := json.Marshal(id)
		require.NoError(t, err)
		require.Equal(t, `"`+id.String()+`"`, string(marshaled))
	})
	for _, s := range []string{"", "00", "0102fe0000000000000000000000000", "0102fe00000000000000000000000000 ", "0102fe0000000000000000000000000g", "0102fe00-0000-0000-0000-00000000"} {
		_, err := event.ParseID(s)
		assert.Error(t, err, s)
	}
}

// timestamps are bodies with what HasTimestamp has to say of them.
var timestamps = map[string]bool{
	``:                                   false,
	`{}`:                                 false,
	`{"timestamp":"2026-11-24"}`:         true,
	"{\"timestamp\" \t\r\n:1}":           true,
	`{"a":1,"timestamp":null}`:           true,
	`{"data":"timestamp"}`:               false,
	`{"data":"timestamp","timestamp":1}`: true,
	`{"timestamps":1}`:                   false,
	`{"Timestamp":1}`:                    false,
	`{"data":"\"timestamp\":1"}`:         false,
	`{"a\"timestamp":1}`:                 false,
	`{"a\\":1,"timestamp":1}`:            true,
	`{"\"timestamp":1,"timestamp":2}`:    true,
	`{"nested":{"timestamp":1}}`:         true, // says more than the top level has: see HasTimestamp
	`"timestamp"`:                        false,
	`"timestamp`:                         false,
	`"timestamp":`:                       true, // not JSON; the decoder refuses it
}

func TestHasTimestamp(t *testing.T) {
	t.Parallel()
	for body, want := range timestamps {
		assert.Equal(t, want, event.HasTimestamp([]byte(body)), body)
	}
}

// FuzzHasTimestamp compares with a real parser: on every JSON document it has to
// find a key that is spelled "timestamp", at any depth, and nothing else.
func FuzzHasTimestamp(f *testing.F) {
	for body := range timestamps {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		want, ok := parsedTimestamp(body)
		if ok && event.HasTimestamp(body) != want {
			t.Fatalf("HasTimestamp is %v for %q", !want, body)
		}
	})
}

// parsedTimestamp looks for the key with a parser; ok is false if body is not
// JSON.
func parsedTimestamp(body []byte) (has, ok bool) {
	d := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		kind, n := d.StackIndex(d.StackDepth())
		isName := kind == '{' && n%2 == 0 && d.PeekKind() == '"'
		v, err := d.ReadToken()
		if err != nil {
			return has, d.StackDepth() == 0 && d.InputOffset() > 0 && json.Valid(body)
		}
		if isName && v.String() == "timestamp" && bytes.HasSuffix(body[:d.InputOffset()], []byte(`"timestamp"`)) {
			has = true
		}
	}
}
