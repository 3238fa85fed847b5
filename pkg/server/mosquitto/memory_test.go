package mosquitto

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// resident is the broker's memory in bytes.
func (b *bench) resident() (size int64) {
	b.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.broker.Pid()))
	require.NoError(b.t, err)
	_, rest, _ := bytes.Cut(text, []byte("VmRSS:"))
	_, err = fmt.Sscan(string(rest), &size)
	require.NoError(b.t, err)
	return size << 10
}

// TestOneControllerCannotTakeTheMemory has a controller ask for its own messages and
// read none of them. The broker lives on within its limit, and what it has acknowledged
// to another meanwhile is there.
func TestOneControllerCannotTakeTheMemory(t *testing.T) {
	t.Parallel()
	const limit = 96 << 20
	b := newBench(t)
	b.cfg.MemoryLimit = limit
	b.start()
	b.setDevices([]topic.MAC{device, neighbor})
	b.absentBridge()
	config := b.tls()
	config.Certificates = []tls.Certificate{b.certificate(b.authority, b.devices, neighbor)}
	hostile, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", b.broker.TLSAddress())
	require.NoError(t, err)
	defer func() { _ = hostile.Close() }()
	own := "cmnd/f2-" + string(neighbor) + "/sensor-mode/1/x"
	hello := append(field(nil, "MQTT"), 4, 0x02, 0, 60)
	subscribe := append(field([]byte{0, 1}, own), 0)
	_, err = hostile.Write(append(packet(0x10, field(hello, "any")), packet(0x82, subscribe)...))
	require.NoError(t, err)
	flood := packet(0x30, append(field(nil, own), make([]byte, 64<<10)...))
	_ = hostile.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for sent := 0; err == nil && sent < 2*limit; sent += len(flood) {
		_, err = hostile.Write(flood)
	}
	t.Log("the hostile controller's end: ", err, "; the broker has", b.resident()>>20, "MiB")
	var timeout net.Error
	assert.False(t, errors.As(err, &timeout) && timeout.Timeout(), "it goes on")
	assert.Less(t, b.resident(), int64(limit+64<<20))
	b.publish("acknowledged")
	assert.Len(t, b.queued("acknowledged"), 1)
	select {
	case <-b.broker.Done():
		assert.Fail(t, "the broker has ended", b.broker.Tail())
	default:
	}
}

// Retained messages are for a fleet that asks for them.
func TestRetainedMessagesAreOff(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		b := newBench(t)
		b.cfg.Retained = asked
		b.start()
		b.setDevices([]topic.MAC{device})
		controller := connectMQTT(t, b.deviceOptions(device))
		token := controller.Publish(deviceTopic, 1, true, "kept")
		require.True(t, token.WaitTimeout(patience))
		assert.Equal(t, asked, token.Error() == nil, token.Error())
		_, arrived := listen(t, b.userOptions("operator"), "tele/#", "stat/#")
		wait(t, connectMQTT(t, b.deviceOptions(device)).Publish("stat/f2-e4fd45f654be/x", 1, false, "mark"))
		all := until(t, arrived, "stat/f2-e4fd45f654be/x=mark")
		assert.Len(t, all, map[bool]int{false: 1, true: 2}[asked])
	}
}
