package watch

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret/account/accounttest"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

// TestDropped has a broker whose queues are short throw messages away.
func TestDropped(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(program); err != nil {
		accounttest.SkipMissing(t, err)
	}
	free, err := port.Pick("127.0.0.1", 0)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "user root\nlistener %d 127.0.0.1\nallow_anonymous true\nsys_interval 1\nmax_queued_messages 1\n", free), 0o600))
	server := exec.CommandContext(t.Context(), program, "-c", file)
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", free)
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond)

	cfg := testConfig()
	cfg.MQTTURL = "tcp://" + address
	secrets := &held{}
	secrets.set("registrar", "registrar password", "1")
	reg := prometheus.NewRegistry()
	m := newMetrics(reg)
	b, err := newBroker(&cfg, credential(t, secrets), func(string) {}, m, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	assert.Equal(t, 0, series(t, reg), "nothing is known, least of all that it is zero")
	b.open()
	defer b.close()
	require.Eventually(t, func() bool { return b.ready() == nil }, patience, 10*time.Millisecond)

	absent := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(cfg.MQTTURL).SetClientID("absent").SetCleanSession(false))
	require.NoError(t, await(absent.Connect()))
	require.NoError(t, await(absent.Subscribe("tele/#", 1, nil)))
	absent.Disconnect(250)
	sender := mqtt.NewClient(mqtt.NewClientOptions().AddBroker(cfg.MQTTURL).SetClientID("sender"))
	require.NoError(t, await(sender.Connect()))
	defer sender.Disconnect(250)
	require.NoError(t, await(sender.Publish("tele/x", 1, false, "kept")))
	require.Eventually(t, m.dropped.known.Load, patience, 10*time.Millisecond)
	assert.Equal(t, 1, series(t, reg))
	assert.Zero(t, m.dropped.count.Load(), "the control")
	for range 30 {
		require.NoError(t, await(sender.Publish("tele/x", 1, false, "too much")))
	}
	require.Eventually(t, func() bool { return m.dropped.count.Load() > 0 }, patience, 10*time.Millisecond)
}

// series counts those of the dropped messages.
func series(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	n, err := testutil.GatherAndCount(reg, "f2mesh_registrar_broker_messages_dropped_total")
	require.NoError(t, err)
	return n
}
