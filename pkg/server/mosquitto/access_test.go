package mosquitto

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

func TestNobodyConnectsAnonymously(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	web := "wss://" + mqttHost(b.broker.WebSocketPort())

	assert.True(t, refused(b.options("tcp://"+b.broker.Address())), "1883 without a password")
	assert.True(t, refused(b.userOptions("bridge").SetPassword("wrong")), "1883 with a wrong password")
	assert.True(t, refused(b.options("ssl://"+b.broker.TLSAddress())), "8883 without a certificate")
	assert.True(t, refused(b.options("ssl://"+b.broker.TLSAddress()).SetUsername("bridge").SetPassword("bridge password")),
		"8883 by password")
	assert.True(t, refused(b.options(web)), "9001 without a password")
	assert.True(t, refused(b.options(strings.Replace(web, "wss", "ws", 1)).SetUsername("operator").SetPassword("operator password")),
		"9001 without TLS")

	// The same clients with what was missing.
	assert.False(t, refused(b.userOptions("bridge")))
	assert.False(t, refused(b.deviceOptions(device)))
	assert.False(t, refused(b.options(web).SetUsername("operator").SetPassword("operator password")))
}

func TestCertificateOfAnotherAuthorityIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	stranger, err := identity.OpenAuthority(filepath.Join(t.TempDir(), "certs"))
	require.NoError(t, err)
	config := b.tls()
	config.Certificates = []tls.Certificate{b.certificate(stranger, t.TempDir(), device)}
	assert.True(t, refused(b.options("ssl://"+b.broker.TLSAddress()).SetTLSConfig(config)))

	// A server's certificate of our own CA is not a client's either.
	pair, err := tls.LoadX509KeyPair(b.cfg.CertFile, b.cfg.KeyFile)
	require.NoError(t, err)
	config = b.tls()
	config.Certificates = []tls.Certificate{pair}
	assert.True(t, refused(b.options("ssl://"+b.broker.TLSAddress()).SetTLSConfig(config)))
	assert.False(t, refused(b.deviceOptions(device)))
}

func TestDevicePublishesOnlyItsOwnTopics(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device, neighbor})
	_, arrived := listen(t, b.userOptions("bridge"), "#")
	own := connectMQTT(t, b.deviceOptions(device))
	for _, name := range []string{
		"tele/f2-e4fd45f654bf/sensor-mode/J1/sensor-1",      // another's
		"tele/f2-e4-fd-45-f6-54-bf/sensor-mode/J1/sensor-1", // another's, dashed
		"stat/f2-e4fd45f654bf/access-control-mode/J1/strike-1",
		"cmnd/f2-e4fd45f654bf/access-control-mode/J1/strike-1",
		"cmnd/f2-e4fd45f654be/access-control-mode/J1/strike-1", // a command to itself
		"cmnd/f2-e4fd45f654be/sensor-mode/J1/sensor-1/more",
		"tele/f2-E4fd45f654be/sensor-mode/J1/sensor-1", // mixed case is not granted
		"anything",
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1",
		"tele/f2-e4-fd-45-f6-54-be/alarm-mode/1/motion-sensor-2",
		"stat/f2-e4-fd-45-f6-54-be/access-control-mode/J1/strike-1",
		"cmnd/f2-e4fd45f654be/sensor-mode/J1/sensor-1",
		"cmnd/f2-e4-fd-45-f6-54-be/sensor-mode/J1/sensor-1",
	} {
		wait(t, own.Publish(name, 1, false, "x"))
	}
	assert.Equal(t, []string{
		"tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1=x",
		"tele/f2-e4-fd-45-f6-54-be/alarm-mode/1/motion-sensor-2=x",
		"stat/f2-e4-fd-45-f6-54-be/access-control-mode/J1/strike-1=x",
		"cmnd/f2-e4fd45f654be/sensor-mode/J1/sensor-1=x",
		"cmnd/f2-e4-fd-45-f6-54-be/sensor-mode/J1/sensor-1=x",
	}, until(t, arrived, "cmnd/f2-e4-fd-45-f6-54-be/sensor-mode/J1/sensor-1=x"))

	// What one may not publish its owner may: it was the ACL that refused.
	wait(t, connectMQTT(t, b.deviceOptions(neighbor)).Publish("tele/f2-e4fd45f654bf/sensor-mode/J1/sensor-1", 1, false, "y"))
	until(t, arrived, "tele/f2-e4fd45f654bf/sensor-mode/J1/sensor-1=y")
}

func TestDeviceReadsOnlyItsOwnCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device, neighbor})
	_, arrived := listen(t, b.deviceOptions(device), "#")
	bridge := connectMQTT(t, b.userOptions("bridge"))
	for _, name := range []string{
		"cmnd/f2-e4fd45f654bf/access-control-mode/J1/strike-1",
		"cmnd/f2-e4fd45f654be/access-control-mode/J1/strike-1",
		"cmnd/f2-e4-fd-45-f6-54-be/alarm-mode/J1/siren-1",
	} {
		wait(t, bridge.Publish(name, 1, false, "1"))
	}
	assert.Equal(t, []string{
		"cmnd/f2-e4fd45f654be/access-control-mode/J1/strike-1=1", "cmnd/f2-e4-fd-45-f6-54-be/alarm-mode/J1/siren-1=1",
	}, until(t, arrived, "cmnd/f2-e4-fd-45-f6-54-be/alarm-mode/J1/siren-1=1"))
}

func TestServicesHaveTheirOwnRights(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	operator, arrived := listen(t, b.userOptions("operator"), "#", "$SYS/broker/log/N")
	nobody, nothing := listen(t, b.userOptions("nobody"), "#")
	bridge := connectMQTT(t, b.userOptions("bridge"))
	for _, client := range []mqtt.Client{operator, nobody} {
		wait(t, client.Publish("cmnd/f2-e4fd45f654be/alarm-mode/J1/siren-1", 1, false, "forged"))
	}
	wait(t, bridge.Publish("tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", 1, false, "forged"))
	wait(t, bridge.Publish("cmnd/f2-e4fd45f654be/alarm-mode/J1/siren-1", 1, false, "1"))
	all := until(t, arrived, "cmnd/f2-e4fd45f654be/alarm-mode/J1/siren-1=1")
	assert.True(t, strings.HasPrefix(all[0], "$SYS/broker/log/N="), all[0])
	all = slices.DeleteFunc(all, func(message string) bool { return strings.HasPrefix(message, "$SYS/broker/log/N=") })
	assert.Len(t, all, 1)
	assert.Empty(t, nothing)
}

// A device that names the bridge's client id must not get the bridge's session.
func TestDeviceCannotTakeOverASession(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	lost := make(chan struct{}, 1)
	options := b.userOptions("bridge").SetClientID("bridge").SetConnectionLostHandler(func(mqtt.Client, error) { lost <- struct{}{} })
	_, arrived := listen(t, options, "#")
	thief := connectMQTT(t, b.deviceOptions(device).SetClientID("bridge"))
	wait(t, thief.Publish("tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", 1, false, "x"))
	until(t, arrived, "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1=x")
	assert.Empty(t, lost)

	// Another service may: this is what a takeover looks like.
	connectMQTT(t, b.userOptions("registrar").SetClientID("bridge"))
	select {
	case <-lost:
	case <-time.After(patience):
		require.Fail(t, "the control took nothing over")
	}
}

func TestDevicesChangeWhileRunning(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	_, arrived := listen(t, b.userOptions("bridge"), "#")
	own := connectMQTT(t, b.deviceOptions(device))
	name := "tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1"
	wait(t, own.Publish(name, 1, false, "before"))

	b.writeDevices(device)
	require.NoError(t, Reload(b.cfg.Dir)) // as another process would
	require.Eventually(t, func() bool {
		return own.Publish(name, 1, false, "registered").WaitTimeout(patience) && len(arrived) > 0
	}, patience, 20*time.Millisecond)
	assert.Equal(t, name+"=registered", <-arrived)

	b.setDevices([]topic.MAC{neighbor})
	require.Eventually(t, func() bool {
		for len(arrived) > 0 {
			<-arrived
		}
		wait(t, own.Publish(name, 1, false, "revoked"))
		time.Sleep(20 * time.Millisecond)
		return len(arrived) == 0
	}, patience, 20*time.Millisecond)
}

func TestReloadWithoutABroker(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.writeDevices(device) // before the first start
	require.ErrorIs(t, Reload(b.cfg.Dir), ErrNotRunning)
	b.start()
	assert.False(t, refused(b.deviceOptions(device)))
	_, arrived := listen(t, b.userOptions("bridge"), "#")
	wait(t, connectMQTT(t, b.deviceOptions(device)).Publish("tele/f2-e4fd45f654be/x", 1, false, "x"))
	until(t, arrived, "tele/f2-e4fd45f654be/x=x")
	require.NoError(t, b.broker.Kill())
	require.ErrorIs(t, Reload(b.cfg.Dir), ErrNotRunning, "the pid file of a killed broker")
}

// A packet over the limit ends the connection, and is never acknowledged.
func TestTooLargePacket(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	_, arrived := listen(t, b.userOptions("operator"), "cmnd/#")
	bridge := connectMQTT(t, b.userOptions("bridge"))
	wait(t, bridge.Publish("cmnd/fits", 1, false, make([]byte, 1<<20)))
	assert.Len(t, <-arrived, len("cmnd/fits=")+1<<20)
	token := bridge.Publish("cmnd/large", 1, false, make([]byte, 1<<20+8<<10))
	require.True(t, token.WaitTimeout(patience))
	require.Error(t, token.Error())
	require.NotErrorIs(t, token.Error(), mqtt.TimedOut)
	assert.Empty(t, arrived)
}
