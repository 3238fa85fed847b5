package mosquitto

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// These tests check the section "Messages marked DUP" of mosquitto/README.md on the
// installed Mosquitto: the bridge relies on it to recognise copies.

const deviceTopic = "tele/f2-e4fd45f654be/x"

// redelivery is a bench whose bridge has subscribed.
func redelivery(t *testing.T) (*bench, *wire) {
	t.Helper()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	w := b.wire()
	require.Empty(t, w.subscribe())
	return b, w
}

func TestDUPAfterReconnect(t *testing.T) {
	t.Parallel()
	b, w := redelivery(t)
	b.publish("a", "b", "c", "d")
	first := w.take(4)
	require.Equal(t, "a#1, b#2, c#3, d#4", text(first))
	w.acknowledge(first[:2]...)
	w.close()
	b.publish("e", "f")
	w = b.wire()
	assert.Equal(t, "c#3 DUP, d#4 DUP, e#5, f#6", text(w.ping()), "all before PINGRESP")
	assert.Empty(t, w.ping())
	w = b.wire() // takes the session over
	assert.Equal(t, "c#3 DUP, d#4 DUP, e#5 DUP, f#6 DUP", text(w.subscribe()), "all before SUBACK")
	assert.Empty(t, w.ping())
	b.publish("g")
	assert.Equal(t, "g#7", text(w.take(1)))
}

func TestDUPAfterOrderlyRestart(t *testing.T) {
	t.Parallel()
	b, w := redelivery(t)
	b.publish("a", "b")
	w.take(2)
	w.close()
	b.publish("c", "d")
	b.stop()
	b.start()
	w = b.wire()
	all := w.subscribe()
	assert.Equal(t, "a#1 DUP, b#2 DUP, c#3, d#4", text(all))
	w.acknowledge(all...)
	b.stop()
	b.start()
	w = b.wire()
	assert.Empty(t, w.ping())
	b.publish("e")
	assert.Equal(t, "e#5", text(w.take(1)), "identifiers go on")
}

// TestDUPAfterCrash has a message of each fate between the last save and the kill.
func TestDUPAfterCrash(t *testing.T) {
	t.Parallel()
	b, w := redelivery(t)
	b.publish("acknowledged later", "in flight")
	w.take(2)
	w.close()
	b.publish("queued", "queued, acknowledged later")
	b.save()
	w = b.wire()
	all := w.ping()
	require.Equal(t, "acknowledged later#1 DUP, in flight#2 DUP, queued#3, queued, acknowledged later#4", text(all))
	w.acknowledge(all[0], all[3])
	b.publish("after the save")
	require.Equal(t, "after the save#5", text(w.take(1)))
	require.NoError(t, b.broker.Kill())
	b.start()
	w = b.wire()
	assert.Equal(t, "acknowledged later#1 DUP, in flight#2 DUP, queued#3, queued, acknowledged later#4", text(w.subscribe()),
		"what was only queued comes again without DUP, under its identifier")
	assert.Empty(t, w.ping())
	b.publish("new")
	assert.Equal(t, "new#5", text(w.take(1)), "an identifier of before the crash stands for another message")
}

// TestDUPOnWhatNobodySaw has the broker write into a connection that ends unread.
func TestDUPOnWhatNobodySaw(t *testing.T) {
	t.Parallel()
	b, w := redelivery(t)
	w.close()
	b.publish("unseen")
	b.wire().ping() // the broker has written it; whether anybody reads it makes no difference to it
	assert.Equal(t, "unseen#1 DUP", text(b.wire().ping()))
}

func TestRetainedCopiesAreMarked(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Retained = true
	b.start()
	b.setDevices([]topic.MAC{device})
	controller := connectMQTT(t, b.deviceOptions(device))
	wait(t, controller.Publish(deviceTopic, 1, true, "kept"))
	w := b.wire()
	require.Empty(t, w.subscribe())
	assert.Equal(t, "kept#1 RETAIN", text(w.ping()), "behind the SUBACK")
	wait(t, controller.Publish(deviceTopic, 1, true, "live"))
	assert.Equal(t, "live#2", text(w.ping()), "what comes live is no copy")
	b.stop()
	b.start()
	w = b.wire()
	assert.Equal(t, "kept#1 DUP RETAIN, live#2 DUP", text(w.subscribe()))
	assert.Equal(t, "live#3 RETAIN", text(w.ping()), "a copy for each SUBSCRIBE")
}

// TestControllersRepetitionIsNotMarked has a controller whose PUBACK was lost.
func TestControllersRepetitionIsNotMarked(t *testing.T) {
	t.Parallel()
	b, w := redelivery(t)
	controller := b.deviceWire()
	controller.publish(7, false, "a")
	controller.publish(7, true, "a")
	assert.Equal(t, "a#1, a#2", text(w.take(2)))
}

// TestPacketIdentifiersWrap takes a whole window and every identifier once.
func TestPacketIdentifiersWrap(t *testing.T) {
	t.Parallel()
	const window, number = 8000, 66_000
	b, w := redelivery(t)
	w.close()
	controller := connectMQTT(t, b.deviceOptions(device))
	for n := range number - 1 {
		controller.Publish(deviceTopic, 1, false, strconv.Itoa(n))
	}
	wait(t, controller.Publish(deviceTopic, 1, false, strconv.Itoa(number-1)))
	first := b.wire().ping()
	require.Len(t, first, window)
	w = b.wire()
	again := w.subscribe()
	require.Len(t, again, window, "the answer is behind a whole window")
	for i := range again {
		first[i].dup = true
	}
	require.Equal(t, first, again)
	for n := range number {
		if len(again) == 0 {
			again = w.take(1)
		}
		id := uint16(n%65_535 + 1)
		require.Equal(t, delivery{dup: n < window, id: id, payload: strconv.Itoa(n)}, again[0])
		w.write(packet(pubackKind, binary.BigEndian.AppendUint16(nil, id)))
		again = again[1:]
	}
}

// save returns when the broker has written its sessions anew.
func (b *bench) save() {
	b.t.Helper()
	database := filepath.Join(b.cfg.Dir, "data", "mosquitto.db")
	read := func() []byte {
		data, err := os.ReadFile(database)
		if err != nil {
			require.ErrorIs(b.t, err, fs.ErrNotExist)
		}
		return data
	}
	before := read()
	require.NoError(b.t, b.broker.Save())
	require.Eventually(b.t, func() bool { return !bytes.Equal(before, read()) }, patience, 10*time.Millisecond)
}
