package main

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// burst publishes n readings of a controller as fast as the broker takes them, the
// first-th at that millisecond after start, and returns when the broker has all.
func burst(t *testing.T, device mqtt.Client, start time.Time, first, n int) {
	t.Helper()
	tokens := make(chan mqtt.Token, 1000)
	done := make(chan error, 1)
	go func() {
		var failed error
		for token := range tokens {
			if !token.WaitTimeout(time.Minute) && failed == nil {
				failed = fmt.Errorf("no PUBACK")
			}
		}
		done <- failed
	}()
	for i := first; i < first+n; i++ {
		at := start.Add(time.Duration(i) * time.Millisecond)
		tokens <- device.Publish("tele/f2-"+string(mac)+"/sensor-mode/J1/sensor-1", 1, false,
			fmt.Sprintf(`{"timestamp":%q,"temperature":%d}`, at.UTC().Format(time.RFC3339Nano), i%50))
	}
	close(tokens)
	require.NoError(t, <-done)
}

// TestHistoryNeverStops has a mesh with small streams take many times what they hold,
// at full speed: it goes on, and keeps as much history as fits. What the writer has not
// written is no history: with it stopped the streams are full, the broker keeps the
// rest, nothing is lost, and it goes on by itself. Without the keeper it stops.
//
// F2MESH_MESSAGES is how many messages it takes, through streams of 64 MiB.
func TestHistoryNeverStops(t *testing.T) {
	limit, messages := int64(4<<20), 30_000
	if text := os.Getenv("F2MESH_MESSAGES"); text != "" {
		var err error
		limit = 64 << 20
		messages, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	m := startMesh(t, func(c *meshConfig) { c.Sizes.RawBytes, c.Sizes.DecodedBytes = limit, limit })
	device := m.device(t, mac)
	state := func(name string) jetstream.StreamState {
		s, err := m.js.Stream(t.Context(), name)
		require.NoError(t, err)
		return s.CachedInfo().State
	}
	rows := func() int { return m.count(t, "SELECT count(*) FROM measurement") }
	full := func(name string) bool { // has no room for a batch of 1,000
		s := state(name)
		return limit-int64(s.Bytes) < 1500*int64(s.Bytes/max(s.Msgs, 1))
	}
	// A clock as wrong as a day would be replaced by ours, and readings of one moment were conflicts.
	start, sent := time.Now().Add(-4*time.Hour), 0
	send := func(n int) {
		t.Helper()
		burst(t, device, start, sent, n)
		sent += n
	}
	arrives := func(what string) {
		t.Helper()
		var seen int
		for last := -1; ; { // as long as anything moves
			eventually(t, func() bool { seen = rows(); return seen == sent || seen > last }, "%s: of %d messages %d are rows", what, sent, seen)
			if last = seen; seen == sent {
				return
			}
		}
	}

	started := time.Now()
	send(messages)
	arrives("at full speed")
	t.Logf("%d messages in %s", messages, time.Since(started).Round(time.Millisecond))
	for _, name := range []string{"RAW", "DECODED"} {
		eventually(t, func() bool { return int64(state(name).Bytes) <= max(limit/2, limit-stream.BatchRoom) }, "%s is not trimmed", name)
		s := state(name)
		t.Logf("%s: %d messages of %d bytes, the first is %d", name, s.Msgs, s.Bytes/s.Msgs, s.FirstSeq)
		assert.Greater(t, s.FirstSeq, uint64(1), name)
		assert.Greater(t, float64(s.Bytes), 0.4*float64(limit), "%s keeps as much as fits", name)
	}
	perMessage := int64(state("RAW").Bytes / state("RAW").Msgs)

	require.NoError(t, m.Stop(local.PartWriter))
	send(int(3 * limit / perMessage))
	eventually(t, func() bool { return full("RAW") && full("DECODED") }, "the streams are not full")
	eventually(t, func() bool { return m.Figures()["f2mesh_keeper_alarms"] > 0 }, "nobody is told")
	assert.Less(t, rows(), sent, "the control: the writer has stopped")
	require.NoError(t, m.Start(t.Context(), local.PartWriter))
	arrives("after the writer had stopped")

	require.NoError(t, m.Stop(local.PartKeeper))
	send(int(2 * limit / perMessage))
	eventually(t, func() bool { return full("RAW") || full("DECODED") }, "the control: without the keeper a stream is full")
	assert.Less(t, rows(), sent)
	require.NoError(t, m.Start(t.Context(), local.PartKeeper))
	arrives("after the keeper had stopped")
	assert.Equal(t, sent, m.count(t, "SELECT count(DISTINCT time) FROM measurement"))
}
