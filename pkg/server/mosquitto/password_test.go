package mosquitto

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// watched connects and tells when the connection is lost.
func watched(t *testing.T, options *mqtt.ClientOptions) <-chan error {
	t.Helper()
	lost := make(chan error, 10)
	connectMQTT(t, options.SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err }))
	return lost
}

// logsIn waits until the broker lets the user in, or refuses it.
func (b *bench) logsIn(want bool, user, password string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		address := b.broker.Address()
		if !isService(user) {
			address = b.broker.PeopleAddress()
		}
		err := LogIn(b.t.Context(), address, user, password)
		return want && err == nil || !want && errors.Is(err, ErrRefused)
	}, patience, 5*time.Millisecond, user)
}

func TestSetPassword(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.setDevices([]topic.MAC{device})
	others := []<-chan error{
		watched(t, b.deviceOptions(device)),
		watched(t, b.userOptions("operator")),
		watched(t, b.userOptions("nobody")),
	}
	bridge := watched(t, b.userOptions("bridge"))
	b.logsIn(false, "bridge_b", "")

	require.NoError(t, SetPassword(b.cfg.Dir, "bridge_b", "new"))
	b.logsIn(true, "bridge_b", "new")
	b.logsIn(true, "bridge", "bridge password")
	assert.Empty(t, bridge, "both work")

	require.NoError(t, SetPassword(b.cfg.Dir, "bridge", ""))
	b.logsIn(false, "bridge", "bridge password")
	b.logsIn(true, "bridge_b", "new")
	select {
	case err := <-bridge:
		require.Error(t, err)
	case <-time.After(patience):
		require.Fail(t, "a session of the retired user stays")
	}
	for i, lost := range others {
		assert.Empty(t, lost, "session %d was lost", i)
	}
}

// The session belongs to the client id, not to the user: what waits in it and what
// comes meanwhile reach the alternate, in order.
func TestAlternateTakesOverTheSession(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.cfg.Users["bridge_b"] = "new"
	b.start()
	b.setDevices([]topic.MAC{device})
	session := func(user, password string) (*mqtt.ClientOptions, <-chan string) {
		got := make(chan string, 100)
		options := b.userOptions(user).SetPassword(password).SetClientID("f2mesh-bridge").SetCleanSession(false).
			SetAutoAckDisabled(true).
			SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { got <- string(m.Payload()) })
		return options, got
	}
	first, before := session("bridge", "bridge password")
	lost := make(chan error, 1)
	client := connectMQTT(t, first.SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost <- err }))
	wait(t, client.Subscribe("tele/#", 1, nil))
	controller := connectMQTT(t, b.deviceOptions(device))
	send := func(text string) {
		wait(t, controller.Publish("tele/f2-e4fd45f654be/sensor-mode/J1/sensor-1", 1, false, text))
	}
	send("unacknowledged")
	require.Equal(t, "unacknowledged", <-before)

	second, after := session("bridge_b", "new")
	connectMQTT(t, second)
	select {
	case err := <-lost:
		require.Error(t, err)
	case <-time.After(patience):
		require.Fail(t, "both are connected under one client id")
	}
	send("later")
	for _, want := range []string{"unacknowledged", "later"} {
		select {
		case text := <-after:
			assert.Equal(t, want, text)
		case <-time.After(patience):
			require.Fail(t, "the alternate does not get "+want)
		}
	}
}

// Two rotations at a time lose neither's password.
func TestSetPasswordConcurrently(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	users := []string{"bridge_b", "operator_b", "registrar", "registrar_b"}
	var group sync.WaitGroup
	for _, user := range users {
		group.Go(func() { assert.NoError(t, SetPassword(b.cfg.Dir, user, "new "+user)) })
	}
	group.Wait()
	for _, user := range users {
		b.logsIn(true, user, "new "+user)
	}
	b.logsIn(true, "bridge", "bridge password")
}

func TestSetPasswordWithoutBroker(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.stop()
	require.ErrorIs(t, SetPassword(b.cfg.Dir, "bridge_b", "new"), ErrNotRunning)
	require.ErrorContains(t, SetPassword(b.cfg.Dir, "a:b", "new"), "a character that ends it")
}

// What the broker's account puts in place of the file is not copied for it.
func TestSetPasswordFollowsNoLink(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	ours := filepath.Join(t.TempDir(), "shadow")
	require.NoError(t, os.WriteFile(ours, []byte("root:$6$not for the broker\n"), 0o600))
	folder, err := filepath.EvalSymlinks(b.cfg.Dir)
	require.NoError(t, err)
	path := filepath.Join(folder, passwordsFile)
	require.NoError(t, os.Rename(path, path+".away"))
	require.NoError(t, os.Symlink(ours, path))
	require.Error(t, SetPassword(b.cfg.Dir, "bridge_b", "new"))
	target, err := os.Readlink(path)
	require.NoError(t, err, "nothing was written")
	assert.Equal(t, ours, target)

	require.NoError(t, os.Rename(path+".away", path))
	require.NoError(t, SetPassword(b.cfg.Dir, "bridge_b", "new"), "the control")
	b.logsIn(true, "bridge_b", "new")
}
