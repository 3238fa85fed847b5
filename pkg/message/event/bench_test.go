package event_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/event"
)

func BenchmarkAppendJSON(b *testing.B) {
	d := sample()
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = d.AppendJSON(buf[:0])
	}
}

// BenchmarkParseDecoded parses a message of the decoder, and one that needs the JSON parser
// because a name has escapes.
func BenchmarkParseDecoded(b *testing.B) {
	for _, device := range []string{"Hall north", `Hall "north"`} {
		b.Run(device, func(b *testing.B) {
			d := sample()
			d.Device = device
			data := d.AppendJSON(nil)
			b.ReportAllocs()
			for b.Loop() {
				require.NoError(b, event.ParseDecoded(place, data, &d))
			}
		})
	}
}

func BenchmarkDigest(b *testing.B) {
	body := []byte(`{"timestamp":"2026-11-24 10:00:00.123456","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`)
	b.ReportAllocs()
	for b.Loop() {
		_ = event.Digest("f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1", body)
	}
}
