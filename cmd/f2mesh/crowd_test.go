package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

const (
	crowd   = 200    // browsers
	inFleet = 10_000 // controllers
)

// enlarge registers controllers and gives each a last state.
func (m *testMesh) enlarge(t *testing.T) {
	t.Helper()
	m.sql(t, "registry", fmt.Sprintf(`
WITH given AS (SELECT issuer FROM public.certificate LIMIT 1),
made AS (INSERT INTO public.certificate (issuer, serial, mac, fingerprint, not_before, not_after)
  SELECT issuer, 'test' || n, lpad(to_hex(n), 12, '0'), 'test', now(), now() + interval '1 year' FROM given, generate_series(1, %d) n RETURNING issuer, serial, mac)
INSERT INTO public.device (mac, serial_number, status, issuer, serial, own_key) SELECT mac, serial, 'active', issuer, serial, false FROM made`, inFleet))
	for n := 1; n <= inFleet; n++ {
		err := m.js.Conn().Publish(fmt.Sprintf("$KV.LATEST.%012x.alarm-mode.1.siren-1", n),
			[]byte(`{"id":"18eccba0d273de00000000000012d688","time":"2026-11-24T10:00:00Z","device":[101],"state":{"status":true}}`))
		require.NoError(t, err)
	}
	eventually(t, func() bool {
		latest, err := m.js.Stream(t.Context(), "KV_LATEST")
		return err == nil && latest.CachedInfo().State.Msgs >= inFleet
	}, "LATEST was not filled")
}

// from is a browser like b at another address of this machine: each may have so many
// connections.
func (b *browser) from(last int) *http.Client {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+last))}}
	config := b.Transport.(*http.Transport).TLSClientConfig.Clone()
	return &http.Client{Jar: b.Jar, Transport: &http.Transport{DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(ctx, network, address)
	}}}
}

// TestConsoleCrowd has many browsers look at a large fleet. One of them reads nothing.
func TestConsoleCrowd(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Health.Interval = time.Second })
	m.enlarge(t)
	m.publishOneOfEach(t)
	device := m.device(t, mac)
	b := m.signedIn(t, "admin")
	began := time.Now()
	_, _, _ = b.ask(t, http.MethodGet, "/fleet", nil)
	first := time.Since(began)
	began = time.Now()
	_, _, body := b.ask(t, http.MethodGet, "/fleet", nil)
	again := time.Since(began)
	assert.Contains(t, body, "10\u202f003 of 10\u202f003 controllers")
	assert.NotContains(t, body, "never heard: 10")
	began = time.Now()
	_, _, body = b.ask(t, http.MethodGet, "/fleet?q=00000000002a", nil)
	found := time.Since(began)
	assert.Contains(t, body, "1 of 10\u202f003 controllers")

	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var seen atomic.Int64
	group, ctx := errgroup.WithContext(t.Context())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{}, crowd)
	for n := range crowd {
		group.Go(func() error {
			client := b.from(n / 50)
			defer client.CloseIdleConnections()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, b.address("/fleet/"+string(mac)+"/live"), http.NoBody)
			if err != nil {
				return err
			}
			answer, err := client.Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = answer.Body.Close() }()
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("status %d", answer.StatusCode)
			}
			lines := bufio.NewScanner(answer.Body)
			for lines.Scan() {
				switch line := lines.Text(); {
				case strings.Contains(line, "25.52 °C"):
					ready <- struct{}{}
					if n == 0 { // reads nothing any more
						<-ctx.Done()
						return nil
					}
				case strings.Contains(line, "26.52 °C"):
					seen.Add(1)
				}
			}
			return nil
		})
	}
	for n := range crowd {
		select {
		case <-ready:
		case <-time.After(time.Minute):
			require.Fail(t, "no last state", "%d browsers have it", n)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&during)
	began = time.Now()
	publish(t, device, fmt.Sprintf("tele/f2-%s/sensor-mode/J1/sensor-1", mac), `{"data":"01 03 0C 0A 5C 13 88 02 BC 00 00 00 00 00 00 9C 34"}`)
	eventually(t, func() bool { return seen.Load() >= crowd-1 }, "not all browsers are live")
	t.Logf("fleet of %d: first page %s, page %s, search %s; %d browsers live within %s, with %d KiB each, both ends (and what runs beside)",
		inFleet, first, again, found, crowd, time.Since(began), (int64(during.HeapInuse)-int64(before.HeapInuse))/1024/crowd)
	assert.Less(t, again, 5*time.Second, "a page of a large fleet")
	cancel()
	require.NoError(t, group.Wait())
}
