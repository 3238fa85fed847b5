package deadletter

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// FuzzParse parses messages of DEAD_LETTER, of which each stage may store its own.
func FuzzParse(f *testing.F) {
	f.Add("f2.dead.decoder.bad_json.e4fd45f654be", "detail", "a \\u00e9 \\n", "3", []byte("{}"))
	f.Add("f2.dead.bridge.bad_mac.unknown", "", `"`, "-1", []byte(nil))
	f.Add("f2.dead", "\\", "\\x", "99999999999999999999", []byte("x"))
	f.Fuzz(func(t *testing.T, subject, detail, at, number string, data []byte) {
		s := Parse(&stream.Message{Subject: subject, Data: data, Sequence: 1, Header: nats.Header{
			HeaderDetail: {detail}, HeaderTopic: {at}, HeaderMember: {at}, HeaderTime: {at}, event.HeaderReceived: {at},
			HeaderCount: {number}, HeaderDataPoint: {number}, HeaderDecoded: {number}, HeaderPayloadLength: {number},
			event.HeaderID: {number}, HeaderDigest: {number},
		}})
		if s.MAC != "" {
			mac, err := topic.ParseMAC(string(s.MAC))
			require.NoError(t, err)
			require.Equal(t, mac, s.MAC)
		}
		_, _ = s.Whole(), s.Counted()
	})
}
