package mqttconn

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkRatio moves packets as paho does, a Write each and four small Reads
// each, through a plain and a buffered connection, and prints how many times
// the CPU time and the wall-clock time of buffered the plain one costs.
func BenchmarkRatio(b *testing.B) {
	for _, pair := range []struct {
		name string
		open func(testing.TB) (net.Conn, net.Conn)
	}{{"tcp", tcpPair}, {"tls", tlsPair}} {
		for _, way := range []struct {
			name string
			run  func(testing.TB, net.Conn, net.Conn, int)
		}{{"write", writePackets}, {"read", readPackets}} {
			b.Run(pair.name+"/"+way.name, func(b *testing.B) {
				b.StopTimer()
				plainCPU, plainTime := measure(b, pair.open, way.run, func(c net.Conn) net.Conn { return c })
				b.StartTimer()
				cpu, wall := measure(b, pair.open, way.run, Buffer)
				b.ReportMetric(float64(plainCPU)/float64(cpu), "cpu-ratio")
				b.ReportMetric(float64(plainTime)/float64(wall), "time-ratio")
			})
		}
	}
}

func measure(b *testing.B, open func(testing.TB) (net.Conn, net.Conn), run func(testing.TB, net.Conn, net.Conn, int), wrap func(net.Conn) net.Conn) (cpu, wall time.Duration) {
	b.Helper()
	client, server := open(b)
	client = wrap(client)
	started, used := time.Now(), cpuTime(b)
	run(b, client, server, b.N)
	cpu, wall = cpuTime(b)-used, time.Since(started)
	require.NoError(b, client.Close())
	return cpu, wall
}

const packetSize = 200

// writePackets writes n packets; the other end reads in large pieces.
func writePackets(t testing.TB, client, server net.Conn, n int) { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.CopyN(io.Discard, bufio.NewReaderSize(server, 1<<16), int64(n)*packetSize) })
	packet := make([]byte, packetSize)
	for range n {
		_, err := client.Write(packet)
		require.NoError(t, err)
	}
	wg.Wait()
}

// readPackets reads n packets that the other end writes in large pieces: a
// type byte, two of length, and the rest, as paho does.
func readPackets(t testing.TB, client, server net.Conn, n int) { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		w := bufio.NewWriterSize(server, 40*packetSize)
		packet := make([]byte, packetSize)
		for range n {
			_, _ = w.Write(packet)
		}
		_ = w.Flush()
	})
	b := make([]byte, packetSize)
	for range n {
		for _, part := range [][]byte{b[:1], b[1:2], b[2:3], b[3:]} {
			_, err := io.ReadFull(client, part)
			require.NoError(t, err)
		}
	}
	wg.Wait()
}

func cpuTime(t testing.TB) time.Duration { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func tlsPair(t testing.TB) (client, server net.Conn) { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	config := tlsConfig(t)
	rawClient, rawServer := tcpPair(t)
	c, s := tls.Client(rawClient, config), tls.Server(rawServer, config)
	var wg sync.WaitGroup
	wg.Go(func() { require.NoError(t, s.HandshakeContext(t.Context())) })
	require.NoError(t, c.HandshakeContext(t.Context()))
	wg.Wait()
	return c, s
}

// tlsConfig serves both ends, with a certificate made for the test.
func tlsConfig(t testing.TB) *tls.Config { //nolint:thelper // serves tests and benchmarks
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: pool, ServerName: "localhost",
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}
