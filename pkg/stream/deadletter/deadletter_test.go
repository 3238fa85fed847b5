package deadletter_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

var moment = time.Date(2026, 11, 24, 10, 0, 0, 5, time.FixedZone("CET", 3600))

func sample() deadletter.Letter {
	return deadletter.Letter{
		Stage: "decoder", Reason: "out_of_range", Detail: "data point 3: frame: out_of_range", MAC: "e4fd45f654be",
		Topic: "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", ID: event.PlaceID(7, 42), Payload: []byte("\x00as it came\xff"),
		Received: moment, Time: moment.Add(time.Second), DataPointID: 3, MetadataVersion: "00ff", SQLState: "22021",
	}
}

func TestMessage(t *testing.T) {
	t.Parallel()
	l := sample()
	m := l.Message()
	assert.Equal(t, "f2.dead.decoder.out_of_range.e4fd45f654be", m.Subject)
	assert.Empty(t, m.Data, "it is in RAW")
	assert.Equal(t, nats.Header{
		deadletter.HeaderCount:           {"1"},
		deadletter.HeaderRawSequence:     {"42"},
		event.HeaderID:                   {"0000000000000007000000000000002a"},
		event.HeaderReceived:             {"2026-11-24T09:00:00.000000005Z"},
		deadletter.HeaderDetail:          {"data point 3: frame: out_of_range"},
		deadletter.HeaderTopic:           {l.Topic},
		deadletter.HeaderTime:            {"2026-11-24T09:00:01.000000005Z"},
		deadletter.HeaderDataPoint:       {"3"},
		deadletter.HeaderMetadataVersion: {"00ff"},
		deadletter.HeaderSQLState:        {"22021"},
	}, m.Header)
	l.ID = event.ID{}
	assert.Equal(t, l.Payload, l.Message().Data, "it never reached RAW")
}

func TestMessageOfLittle(t *testing.T) {
	t.Parallel()
	l := deadletter.Letter{Stage: "bridge", Reason: "bad_levels"}
	m := l.Message()
	assert.Equal(t, "f2.dead.bridge.bad_levels.unknown", m.Subject)
	for _, header := range []string{deadletter.HeaderDetail, deadletter.HeaderTopic, deadletter.HeaderDataPoint, deadletter.HeaderMetadataVersion, deadletter.HeaderSQLState} {
		assert.NotContains(t, m.Header, header, "no empty headers")
	}
}

// hostile are topics and details that would break a header if they went into
// it as they are.
var hostile = []string{
	"a\r\nNats-Rollup: all", "\r\n\r\n", "\n", "\x00", "\xff\xfe", "tele/f2-\u2028\u0085", "日本", "tele/😀", `back\slash "quoted"`,
	"\x7f\x1b[31m", " leading and trailing ", "\t", ":", strings.Repeat("x", 65535), strings.Repeat("\xff", 65535), strings.Repeat("😀", 16000),
}

// TestHostileHeaders: whatever a topic holds, its header is one legal line, and
// all headers together are within what JetStream takes.
func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	for _, s := range hostile {
		legal(t, s)
	}
	rapid.Check(t, func(t *rapid.T) { legal(t, string(rapid.SliceOf(rapid.Byte()).Draw(t, "topic"))) })
}

// maxHeader is the server's limit of a stored message's headers.
const maxHeader = 1<<16 - 1

func legal(t require.TestingT, s string) {
	l := sample()
	l.Topic, l.Detail = s, s
	m := l.Message()
	size := len("NATS/1.0\r\n\r\n")
	for key, values := range m.Header {
		require.Len(t, values, 1)
		size += len(key) + len(": \r\n") + len(values[0])
		for _, c := range []byte(values[0]) {
			require.True(t, ' ' <= c && c <= '~', "header %s of topic %.100q holds the byte %#x", key, s, c)
		}
	}
	require.Less(t, size, maxHeader-1024, "there must be room for the headers of a batch")
	require.Equal(t, "f2.dead.decoder.out_of_range.e4fd45f654be", m.Subject)
}

// TestHeaderContainsTopic: what is not too long can be read back from the header.
func TestHeaderContainsTopic(t *testing.T) {
	t.Parallel()
	assert.Equal(t, `say "hi"`, header(`say "hi"`))
	assert.Equal(t, `a\r\nb\x00\xff\u65e5`, header("a\r\nb\x00\xff日"))
	assert.True(t, strings.HasPrefix(header(strings.Repeat("x", 65535)), strings.Repeat("x", 1000)), "of a long topic the beginning is there")
	rapid.Check(t, func(t *rapid.T) {
		topic := string(rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "topic"))
		got, err := strconv.Unquote(`"` + strings.ReplaceAll(header(topic), `"`, `\"`) + `"`)
		require.NoError(t, err)
		require.Equal(t, topic, got)
	})
}

func header(topic string) string {
	l := sample()
	l.Topic = topic
	return l.Message().Header.Get(deadletter.HeaderTopic)
}
