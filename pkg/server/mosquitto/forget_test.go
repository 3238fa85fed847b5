package mosquitto

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

const (
	openDoor    = "cmnd/f2-e4fd45f654be/access-control-mode/3/strike-1"
	fadingValue = "tele/f2-e4fd45f654be/fading"
)

// TestRestartInTheSecondOfExpiry starts a broker in the second in which a command expires
// that it saved: the controller must not get it when it comes back.
func TestRestartInTheSecondOfExpiry(t *testing.T) {
	t.Parallel()
	t.Run("forgotten", func(t *testing.T) {
		t.Parallel()
		b := savedCommand(t)
		b.start()
		assert.Empty(t, b.commandsLater())
		// A reading with an expiry of its own is not forgotten.
		assert.Equal(t, []string{fadingValue + "=1", "tele/f2-e4fd45f654be/x=last"}, b.queued("last"))
	})
	t.Run("control", func(t *testing.T) {
		t.Parallel()
		b := savedCommand(t)
		owner, dir, err := place(b.cfg.Dir)
		require.NoError(t, err)
		program, err := find()
		require.NoError(t, err)
		broker, err := process.Start(process.Config{
			Path: program, Dir: dir, Credential: owner.Credential(), Args: []string{"-c", filepath.Join(dir, confFile)}, Log: b.cfg.Log,
		})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, broker.Kill()) })
		assert.Equal(t, []string{openDoor + "=open"}, b.commandsLater(), "Mosquitto alone: if this fails, it has learned it")
	})
}

// savedCommand is a broker that was stopped with a command for a controller and readings for the
// bridge, which are both away. It returns in the second in which the command expires.
func savedCommand(t *testing.T) *bench {
	t.Helper()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	b.absentBridge()
	config := b.tls()
	config.Certificates = []tls.Certificate{b.certificate(b.authority, b.devices, device)}
	config.ServerName = "127.0.0.1"
	secure, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", b.broker.TLSAddress())
	require.NoError(t, err)
	b.publishExpiring(secure, "", fadingValue, "1", 1000)
	b.publish("last") // this ends the controller's session
	client, _ := listen(t, b.sessionOptions(), "cmnd/f2-e4fd45f654be/#")
	client.Disconnect(100)
	plain, err := new(net.Dialer).DialContext(t.Context(), "tcp", b.broker.Address())
	require.NoError(t, err)
	b.publishExpiring(plain, "bridge", openDoor, "open", 3)
	b.stop()

	database, err := os.ReadFile(filepath.Join(b.cfg.Dir, dataFolder, savedFile))
	require.NoError(t, err)
	at := bytes.Index(database, []byte(openDoor)) - len("sender") - len("bridge") - headSize + expiryAt
	expiry := time.Unix(int64(binary.NativeEndian.Uint64(database[at:])), 0)
	left := time.Until(expiry)
	require.InDelta(t, 1.5, left.Seconds(), 1.5, "the command expires soon, and the broker has stopped before")
	time.Sleep(left + 50*time.Millisecond)
	return b
}

// publishExpiring publishes over a new connection, with a Message Expiry in seconds.
func (b *bench) publishExpiring(conn net.Conn, user, name, payload string, expiry uint32) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	client := paho.NewClient(paho.ClientConfig{Conn: conn})
	connect := &paho.Connect{ClientID: "sender", CleanStart: true, KeepAlive: 30}
	if user != "" {
		connect.Username, connect.UsernameFlag = user, true
		connect.Password, connect.PasswordFlag = []byte(b.cfg.Users[user]), true
	}
	_, err := client.Connect(ctx, connect)
	require.NoError(b.t, err)
	_, err = client.Publish(ctx, &paho.Publish{Topic: name, Payload: []byte(payload), QoS: 1, Properties: &paho.PublishProperties{MessageExpiry: &expiry}})
	require.NoError(b.t, err)
	require.NoError(b.t, client.Disconnect(&paho.Disconnect{}))
}

// commandsLater returns what the controller gets that connects after all commands have expired.
func (b *bench) commandsLater() (arrived []string) {
	b.t.Helper()
	time.Sleep(2500 * time.Millisecond)
	client, commands := listen(b.t, b.sessionOptions())
	defer client.Disconnect(100)
	time.Sleep(time.Second)
	for len(commands) > 0 {
		arrived = append(arrived, <-commands)
	}
	return arrived
}

// sessionOptions are those of a controller with a persistent session.
func (b *bench) sessionOptions() *mqtt.ClientOptions {
	return b.deviceOptions(device).SetClientID("controller").SetCleanSession(false)
}
