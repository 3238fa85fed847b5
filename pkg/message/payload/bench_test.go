package payload_test

import (
	"testing"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

func BenchmarkParse(b *testing.B) {
	for _, bc := range []struct{ name, topic, body string }{
		{"frame", "tele/sensor-1", `{"timestamp":"2026-03-01 10:00:00.123456","data":"01 03 0C 09 F8 13 88 02 BC 00 00 00 00 00 00 18 28"}`},
		{"numbers", "tele/sensor-1", `{"timestamp":"2026-03-01 10:00:00.123456","temperature":23.5,"humidity":50.25,"co2":700}`},
		{"event", "tele/strike-1", `{"timestamp":"2026-03-01 10:00:00.123456","status":true}`},
		{"command", "cmnd/strike-1", `{"power-flag":1,"period":5}`},
		{"refused", "tele/sensor-1", `{"timestamp":"2026-03-01 10:00:00.123456","data":"01 03 0"}`},
	} {
		b.Run(bc.name, func(b *testing.B) {
			var p payload.Parser
			on := on(b, bc.topic)
			body := []byte(bc.body)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = p.Parse(on, body)
			}
		})
	}
}
