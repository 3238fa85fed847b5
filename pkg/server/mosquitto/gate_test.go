package mosquitto

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// gated is a bench whose lists a Gate keeps.
type gated struct {
	*bench
	gate *Gate
}

func newGated(t *testing.T) *gated {
	t.Helper()
	b := &gated{bench: newBench(t)}
	b.cfg.CAFile = ""
	gate, err := OpenGate(b.cfg.Dir)
	require.NoError(t, err)
	gate.Login = func(context.Context) (string, string, error) { return "registrar", b.cfg.Users["registrar"], nil }
	b.gate = gate
	return b
}

// revocations signs a list that ends at next, with the given certificates.
func (b *gated) revocations(next time.Time, revoked ...*x509.Certificate) []byte {
	b.t.Helper()
	entries := make([]x509.RevocationListEntry, 0, len(revoked))
	for _, c := range revoked {
		entries = append(entries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	return crl(b.t, b.authority, &x509.RevocationList{
		Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next, RevokedCertificateEntries: entries,
	})
}

func (b *gated) lists(devices []topic.MAC, revoked ...*x509.Certificate) Lists {
	b.t.Helper()
	cas, err := os.ReadFile(b.authority.CAFile())
	require.NoError(b.t, err)
	return Lists{Devices: devices, CAs: cas, CRLs: b.revocations(time.Now().Add(time.Hour), revoked...)}
}

func (b *gated) admit(l Lists) {
	b.t.Helper()
	change, err := b.gate.Prepare(b.t.Context(), l)
	require.NoError(b.t, err)
	require.NoError(b.t, change.Commit(b.t.Context()))
}

func (b *gated) leaf(mac topic.MAC) *x509.Certificate {
	b.t.Helper()
	pair := b.certificate(b.authority, b.devices, mac)
	return pair.Leaf
}

func TestGateBeforeAndWhileTheBrokerRuns(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	_, err := Start(t.Context(), b.cfg)
	require.ErrorContains(t, err, "lists of controllers are not there yet", "a broker without lists would refuse all or admit all")

	b.admit(b.lists([]topic.MAC{device}))
	b.start()
	_, arrived := listen(t, b.userOptions("bridge"), "tele/#")
	own, others := "tele/f2-e4fd45f654be/x", "tele/f2-e4fd45f654bf/x"
	first, second := connectMQTT(t, b.deviceOptions(device)), connectMQTT(t, b.deviceOptions(neighbor))
	wait(t, second.Publish(others, 1, false, "not yet"))
	wait(t, first.Publish(own, 1, false, "1"))
	assert.Equal(t, []string{own + "=1"}, until(t, arrived, own+"=1"))

	// Once Commit has returned, the lists hold: no polling here.
	b.admit(b.lists([]topic.MAC{device, neighbor}))
	wait(t, second.Publish(others, 1, false, "2"))
	until(t, arrived, others+"=2")
	assert.True(t, first.IsConnectionOpen() && second.IsConnectionOpen(), "sessions stay open")
}

// Revoking takes effect in this order: the lists, then the live session.
func TestGateShutsOut(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	both := []topic.MAC{device, neighbor}
	b.admit(b.lists(both))
	b.start()
	lost := make(chan struct{}, 1)
	gone := connectMQTT(t, b.deviceOptions(device).SetConnectionLostHandler(func(mqtt.Client, error) { lost <- struct{}{} }))
	stays := connectMQTT(t, b.deviceOptions(neighbor))
	letIn := func(mac topic.MAC) bool {
		conn := b.handshake(b.certificate(b.authority, b.devices, mac))
		return conn != nil && conn.Close() == nil
	}
	assert.True(t, letIn(device))
	assert.True(t, gone.IsConnectionOpen(), "trying a certificate takes nobody's session over")

	b.admit(b.lists(both[1:], b.leaf(device)))
	assert.False(t, letIn(device))
	assert.True(t, letIn(neighbor), "the other way round")
	require.Error(t, b.gate.Kick(t.Context(), "registrar", "wrong", both[:1]))
	assert.Empty(t, lost, "a live session outlasts its certificate until it is ended")
	require.NoError(t, b.gate.Kick(t.Context(), "registrar", "registrar password", both[:1]))
	select {
	case <-lost:
	case <-time.After(patience):
		require.Fail(t, "the session goes on")
	}
	assert.True(t, refused(b.deviceOptions(device)), "and it does not come back")
	assert.True(t, stays.IsConnectionOpen())
}

func TestGateDoesNothingTwice(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	l := b.lists([]topic.MAC{device})
	b.admit(l)
	b.start()
	b.admit(l)
	mark := filepath.Join(b.cfg.Dir, inForceFile)
	before, err := os.Stat(mark)
	require.NoError(t, err)
	b.admit(l)
	after, err := os.Stat(mark)
	require.NoError(t, err)
	assert.Equal(t, before.ModTime(), after.ModTime(), "the broker was not signalled again")

	// Who died between the files and the signal left no mark.
	require.NoError(t, os.Remove(mark))
	b.admit(l)
	assert.FileExists(t, mark)
}

// What the broker would stumble over never reaches it.
func TestBrokenListsAreRefused(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	good := b.lists([]topic.MAC{device})
	b.admit(good)
	b.start()
	before := b.inFolder()
	other := newBench(t)
	foreign, err := os.ReadFile(other.authority.CAFile())
	require.NoError(t, err)
	for name, spoil := range map[string]func(*Lists){
		"a MAC that is none":        func(l *Lists) { l.Devices = append(l.Devices, "e4fd45f654b\ntopic #") },
		"a wildcard":                func(l *Lists) { l.Devices = []topic.MAC{"+"} },
		"one twice":                 func(l *Lists) { l.Devices = []topic.MAC{device, device} },
		"no CA":                     func(l *Lists) { l.CAs = nil },
		"another's CA":              func(l *Lists) { l.CAs = foreign },
		"a CA without a list":       func(l *Lists) { l.CAs = append(bytes.Clone(l.CAs), foreign...) },
		"no list":                   func(l *Lists) { l.CRLs = nil },
		"half a list":               func(l *Lists) { l.CRLs = l.CRLs[:len(l.CRLs)/2] },
		"a list that has run out":   func(l *Lists) { l.CRLs = b.revocations(time.Now().Add(-time.Second)) },
		"a list and something else": func(l *Lists) { l.CRLs = append(bytes.Clone(l.CRLs), "x"...) },
	} {
		l := good
		spoil(&l)
		_, err := b.gate.Prepare(t.Context(), l)
		require.Error(t, err, name)
	}
	assert.Equal(t, before, b.inFolder())
	assert.False(t, refused(b.deviceOptions(device)))
}

// The check accepts what deviceACL writes and no other line that Mosquitto knows.
func TestCheckACL(t *testing.T) {
	t.Parallel()
	acl := string(deviceACL([]topic.MAC{device, neighbor}, allSpellings))
	require.NoError(t, checkACL([]byte(acl)))
	for name, broken := range map[string]string{
		"no word of the language": "users",
		"no topic":                "topic",
		"no user":                 "user",
		"a user with a blank":     "user " + device.Dashed() + " ",
		"an access that is none":  "topic execute tele/f2-e4fd45f654bf/#",
		"an access too much":      "topic readwrite tele/f2-e4fd45f654bf/#",
		"a default access":        "topic tele/f2-e4fd45f654bf/#",
		"a wrong wildcard":        "topic read a/b#",
		"another's topic":         "topic write tele/f2-e4fd45f654be/#",
		"a blank before":          " topic write tele/f2-e4fd45f654bf/#",
		"a blank behind":          "topic write tele/f2-e4fd45f654bf/# ",
		"too much for everybody":  "pattern write #",
		"too much for one":        "topic write #",
		"one more service":        "user bridge",
		"one twice":               "user " + device.Dashed(),
	} {
		require.Error(t, checkACL([]byte(acl+broken+"\n")), name)
	}
}

// inFolder is what the Gate keeps there.
func (b *gated) inFolder() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	for _, name := range []string{caFile, deviceCRLFile, aclFile, inForceFile} {
		text, err := os.ReadFile(filepath.Join(b.cfg.Dir, name))
		if !errors.Is(err, os.ErrNotExist) {
			require.NoError(b.t, err)
		}
		all[name] = string(text)
	}
	return all
}

// The bridge is away while the lists change: what waits for it is still there.
func TestQueueOutlastsAChange(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	b.admit(b.lists([]topic.MAC{device}))
	b.start()
	b.absentBridge()
	b.publish("1", "2")
	b.admit(b.lists([]topic.MAC{device, neighbor}))
	b.publish("3")
	b.admit(b.lists([]topic.MAC{device}))
	assert.Len(t, b.queued("3"), 3)
}

// Fact: a list past its nextUpdate shuts everybody out, also whom it does not name.
// It is why the registrar refreshes it long before.
func TestListThatHasRunOutShutsEverybodyOut(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	l := b.lists([]topic.MAC{device})
	const left = 5 * time.Second
	ends := time.Now().Add(left)
	l.CRLs = b.revocations(ends)
	b.admit(l)
	b.start()
	if time.Now().Before(ends.Truncate(time.Second).Add(-time.Second)) {
		assert.False(t, refused(b.deviceOptions(device)), "just before nextUpdate")
	}
	connected := connectMQTT(t, b.deviceOptions(device))
	ctx, cancel := context.WithDeadline(t.Context(), ends.Add(time.Second))
	defer cancel()
	<-ctx.Done()
	assert.True(t, refused(b.deviceOptions(device)), "after nextUpdate")
	assert.True(t, connected.IsConnectionOpen(), "a session is not looked at again")

	b.admit(b.lists([]topic.MAC{device}))
	assert.False(t, refused(b.deviceOptions(device)), "with a new list")
}
