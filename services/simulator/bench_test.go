package simulator

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
)

// BenchmarkFleet: 100 controllers publish to a real Mosquitto over mutual TLS, at full speed
// and at a rate. It measures the cost of a message in this process. It includes connecting:
// use -benchtime 300000x.
func BenchmarkFleet(b *testing.B) {
	for name, rate := range map[string]int{"full": 0, "20000": 20_000} {
		b.Run(name, func(b *testing.B) {
			m := startMesh(b, 100)
			s := m.simulator(Config{Messages: b.N, Rate: rate, OldFirmware: 0.1})
			used := cpuTime(b)
			b.ResetTimer()
			report, err := s.Run(b.Context())
			require.NoError(b, err)
			b.ReportMetric(float64((cpuTime(b)-used).Nanoseconds())/float64(report.Acknowledged), "cpu-ns/message")
			b.ReportMetric(float64(report.Acknowledged)/report.Duration.Seconds(), "messages/s")
		})
	}
}

// BenchmarkReading builds a frame sensor's payload.
func BenchmarkReading(b *testing.B) {
	c := fleet.Demo(1)[0]
	r := newTestRand()
	k := newComponent(firmware{mac: c.MAC}, c.Connectors[0], c.Connectors[0].Components[1], r)
	var at clock
	var body []byte
	b.ReportAllocs()
	for b.Loop() {
		at.tick(time.Now())
		body = k.appendReading(body[:0], &at, r)
	}
}

func cpuTime(t testing.TB) time.Duration { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
