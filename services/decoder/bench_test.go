package decoder

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/payload"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func BenchmarkDecode(b *testing.B) {
	c, set := newController(environment...), asConfigured()
	for _, bc := range []struct{ name, body string }{
		{"wrong CRC", frameBody(contract)},
		{"right CRC", frameBody("01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 AD 81")},
		{"numbers", `{"temperature":1.5,"humidity":2,"co2":3}`},
		{"unknown members", `{"temperature":1.5,"humidity":2,"co2":3,"battery":"OK","rssi":-60}`},
	} {
		b.Run(bc.name, func(b *testing.B) {
			m := message{subject: "f2.raw.tele." + string(mac) + ".sensor-mode.1.sensor-1", received: received, body: []byte(bc.body)}
			var err error
			m.topic, err = topic.ParseSubject(m.subject)
			require.NoError(b, err)
			var parser payload.Parser
			var d event.Decoded
			b.ReportAllocs()
			for sequence := uint64(1); b.Loop(); sequence++ {
				m.id = event.PlaceID(1, sequence)
				d = event.Decoded{Values: d.Values[:0]}
				if !decode(&m, &parser, c, set, refused, &d).ok {
					b.Fatal("not decoded")
				}
			}
		})
	}
}
