package topic_test

import (
	"testing"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func BenchmarkParse(b *testing.B) {
	for _, bc := range []struct{ name, topic string }{
		{"canonical", "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1"},
		{"dashed", "tele/f2-E4-FD-45-F6-54-BE/sensor-mode/J1/sensor-1"},
		{"refused", "tele/f2-e4fd45f654be/sensor-mode/J1/lamp-1"},
	} {
		b.Run(bc.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = topic.Parse(bc.topic)
			}
		})
	}
}

func BenchmarkParseSubject(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, _ = topic.ParseSubject("f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1")
	}
}

func BenchmarkRawSubject(b *testing.B) {
	parsed, err := topic.Parse("tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = parsed.RawSubject()
	}
}

// TestAllocations requires the number of allocations that the bridge relies on.
func TestAllocations(t *testing.T) {
	var parsed topic.Topic
	atMost := func(want float64, f func()) {
		t.Helper()
		if got := testing.AllocsPerRun(100, f); got > want {
			t.Errorf("%v allocations, want at most %v", got, want)
		}
	}
	atMost(0, func() { parsed, _ = topic.Parse("tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1") })
	atMost(1, func() { _, _ = topic.Parse("tele/f2-E4-FD-45-F6-54-BE/sensor-mode/J1/sensor-1") })
	atMost(1, func() { _ = parsed.RawSubject() })
}
