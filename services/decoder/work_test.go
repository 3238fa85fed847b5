package decoder

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// rawMessage is a RAW message in its first delivery.
type rawMessage struct {
	jetstream.Msg

	subject, body string
}

func (m *rawMessage) Subject() string      { return m.subject }
func (m *rawMessage) Data() []byte         { return []byte(m.body) }
func (m *rawMessage) Headers() nats.Header { return nil }

func (m *rawMessage) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: jetstream.SequencePair{Stream: 1}, NumDelivered: 1, Timestamp: received}, nil
}

// TestDecodedTooLarge: long labels make a small reading too large for JetStream. It must not
// be retried for ever.
func TestDecodedTooLarge(t *testing.T) {
	t.Parallel()
	for unit, want := range map[int]string{10: "", maxDecoded: "decoded_too_large"} {
		c := newController(point{"Temperature", 3, 2, "Int16", 2, strings.Repeat("x", unit)}, point{"Broken", 300, 2, "Int16", 0, ""})
		d := &Decoder{cache: newTestCache(t, &source{controller: c}), parking: newParking()}
		raw := &rawMessage{subject: "f2.raw.tele." + string(mac) + ".sensor-mode.1.sensor-1", body: frameBody(contract)}
		w := &work{messages: []jetstream.Msg{raw}, results: make([]result, 1)}
		require.NoError(t, d.decodeOne(t.Context(), t.Context(), w, &worker{mine: []int{0}}, 0))
		out := w.results[0]
		require.Len(t, out.dead, 1)
		if want == "" {
			assert.True(t, out.dead[0].Part, "the control")
			assert.NotNil(t, out.decoded)
			continue
		}
		assert.Nil(t, out.decoded)
		assert.Equal(t, want, out.dead[0].Reason)
		assert.False(t, out.dead[0].Part, "nothing of the message is decoded")
		assert.WithinDuration(t, time.Now(), out.dead[0].Time, time.Minute)
	}
}
