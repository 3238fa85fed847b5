package registrar

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
)

func newCSR(t *testing.T) (*ecdsa.PrivateKey, *x509.CertificateRequest) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return key, csr
}

// identityPair is a certificate with the key that its device made.
func identityPair(r RequestResult, key *ecdsa.PrivateKey) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{r.Certificate.Raw, r.Issuer.Raw}, PrivateKey: key, Leaf: r.Certificate}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	result := b.registerAll(Request{MAC: device, SerialNumber: "SN-1"})[0]
	assert.Equal(t, "e4-fd-45-f6-54-be", result.Certificate.Subject.CommonName)
	assert.True(t, b.publishes(device))

	shown, err := b.Show(t.Context(), device)
	require.NoError(t, err)
	assert.Equal(t, Active, shown.Status)
	assert.Equal(t, serialOf(result.Certificate), shown.Certificate)
	assert.Equal(t, "SN-1", shown.SerialNumber)
	assert.WithinDuration(t, time.Now().AddDate(0, 0, 365), shown.NotAfter, time.Hour)
	assert.Equal(t, []Device{shown}, b.whole())
	_, err = b.Show(t.Context(), neighbor)
	require.ErrorIs(t, err, ErrUnknown)
	require.NoError(t, b.Check(t.Context(), device, result.Certificate))
	require.ErrorIs(t, b.Check(t.Context(), neighbor, result.Certificate), ErrUnknown)
	_, err = json.Marshal(shown)
	require.NoError(t, err)
}

func TestRegisterTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"})
	files := func() (all []string) {
		for _, name := range identity.BundleFiles() {
			text, err := os.ReadFile(filepath.Join(b.Bundle(device), name))
			require.NoError(t, err)
			all = append(all, string(text))
		}
		return all
	}
	before, rows := files(), b.whole()
	again := b.register(Request{MAC: device, SerialNumber: "SN-1"})[0]
	require.NoError(t, again.Err)
	assert.False(t, again.Issued)
	assert.Equal(t, rows[0], again.Device, "and says what there is")
	other := b.register(Request{MAC: device, SerialNumber: "SN-2"})[0]
	require.ErrorIs(t, other.Err, ErrConflict)
	assert.Equal(t, before, files())
	assert.Equal(t, rows, b.whole())
	assert.Equal(t, 1, b.events(Issue), "and one event in the audit trail")
}

func TestRegisterAgainWithARequest(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, own := newCSR(t)
	_, another := newCSR(t)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: own})
	rows := b.whole()
	again := b.register(Request{MAC: device, SerialNumber: "SN-1", CSR: own})[0]
	require.NoError(t, again.Err)
	assert.False(t, again.Issued)
	other := Request{MAC: device, SerialNumber: "SN-1", CSR: another}
	require.ErrorIs(t, b.register(other)[0].Err, ErrOtherKey)
	foreseen, err := b.Foresee(t.Context(), other)
	require.NoError(t, err)
	require.ErrorIs(t, foreseen[0].Err, ErrOtherKey)
	assert.Equal(t, rows, b.whole())
	_, err = b.Renew(t.Context(), Origin{Actor: "test"}, device, another, nil)
	require.NoError(t, err, "what the refusal recommends")
	require.NoError(t, b.register(other)[0].Err)
	require.ErrorIs(t, b.register(Request{MAC: device, SerialNumber: "SN-1", CSR: own})[0].Err, ErrOtherKey)
}

func (b *bench) events(action Action) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.cfg.Pool.QueryRow(b.t.Context(), "SELECT count(*) FROM audit WHERE action = $1", action).Scan(&n))
	return n
}

func TestForceReplacesAndRevokes(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"}, Request{MAC: neighbor, SerialNumber: "SN-2"})
	old, bystander := b.pair(device), b.pair(neighbor)
	require.True(t, b.admitted(old))
	lost := make(chan struct{})
	options := b.options(old)
	options.OnConnectionLost = func(mqtt.Client, error) { close(lost) }
	b.connect(options)

	b.registerAll(Request{MAC: device, SerialNumber: "SN-9", Force: true})
	assert.False(t, b.admitted(old))
	assert.True(t, b.admitted(b.pair(device)))
	assert.True(t, b.admitted(bystander))
	select {
	case <-lost:
	case <-time.After(patience):
		assert.Fail(t, "the session by the old certificate goes on")
	}
	assert.True(t, b.publishes(device))
	require.ErrorIs(t, b.Check(t.Context(), device, old.Leaf), ErrRevoked)
	assert.Equal(t, "SN-9", b.whole()[0].SerialNumber)
}

// One bad request does not stop the others, and leaves nothing of its own.
func TestRegisterRefusesOneByOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, csr := newCSR(t)
	forged := *csr
	stolen, _ := newCSR(t)
	forged.PublicKey = stolen.Public()
	results := b.register(
		Request{MAC: "e4fd45f65400", SerialNumber: ""},
		Request{MAC: "not a mac", SerialNumber: "SN"},
		Request{MAC: device, SerialNumber: "SN-1"},
		Request{MAC: device, SerialNumber: "SN-1"},
		Request{MAC: "e4fd45f65401", SerialNumber: "SN\n1"},
		Request{MAC: "e4fd45f65402", SerialNumber: strings.Repeat("x", 65)},
		Request{MAC: "e4fd45f65403", SerialNumber: "SN", CSR: &forged},
		Request{MAC: neighbor, SerialNumber: "SN-2", CSR: csr},
		// What stands for no MAC in many lists.
		Request{MAC: "000000000000", SerialNumber: "SN-3"},
		Request{MAC: "ffffffffffff", SerialNumber: "SN-4"},
	)
	for i, good := range []bool{false, false, true, false, false, false, false, true, false, false} {
		if good {
			require.NoError(t, results[i].Err)
		} else {
			require.ErrorIs(t, results[i].Err, ErrRefused, "request %d", i)
		}
		assert.Equal(t, good, results[i].Issued)
	}
	assert.Len(t, b.whole(), 2)
}

// The device's key never comes here; its bundle is complete without.
func TestRegisterByCSR(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	key, csr := newCSR(t)
	result := b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: csr})[0]
	assert.NoFileExists(t, filepath.Join(b.Bundle(device), "device.key"))
	assert.True(t, b.whole()[0].OwnKey)
	pair := identityPair(result, key)
	require.True(t, b.admitted(pair))

	_, err := b.Renew(t.Context(), operator, device, nil, nil)
	require.ErrorIs(t, err, ErrRefused)
	key, csr = newCSR(t)
	renewed, err := b.Renew(t.Context(), operator, device, csr, nil)
	require.NoError(t, err)
	assert.True(t, b.admitted(identityPair(renewed, key)))
	assert.True(t, b.admitted(pair), "the old one still serves")
	b.whole()
}

func TestRenewThenRevoke(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	_, err := b.Renew(t.Context(), operator, device, nil, nil)
	require.ErrorIs(t, err, ErrUnknown)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"})
	old := b.pair(device)
	result, err := b.Renew(t.Context(), operator, device, nil, nil)
	require.NoError(t, err)
	assert.NotNil(t, result.Device.RenewedAt)
	fresh := b.pair(device)
	assert.NotEqual(t, old.Leaf.SerialNumber, fresh.Leaf.SerialNumber)
	assert.True(t, b.admitted(old) && b.admitted(fresh))
	require.NoError(t, b.Check(t.Context(), device, old.Leaf))

	revoked, err := b.Revoke(t.Context(), operator, KeyCompromise, device)
	require.NoError(t, err)
	assert.Equal(t, Revoked, revoked[0].Status)
	assert.False(t, b.admitted(old), "all its certificates are revoked")
	assert.False(t, b.admitted(fresh))
	_, err = b.Renew(t.Context(), operator, device, nil, nil)
	require.ErrorIs(t, err, ErrRevoked)
	require.ErrorIs(t, b.register(Request{MAC: device, SerialNumber: "SN-1"})[0].Err, ErrRevoked)
	require.NoError(t, (&Core{Registrar: b.Registrar}).Admit(t.Context(), operator, []fleet.Controller{{MAC: device, SerialNumber: "SN-1"}}),
		"a mesh with a revoked controller must start")
	assert.False(t, b.admitted(fresh), "the controller stays revoked")
	b.whole()

	_, err = b.Revoke(t.Context(), operator, KeyCompromise, device)
	require.NoError(t, err, "again")
	assert.Equal(t, 1, b.events(RevokeAction))
	_, err = b.Revoke(t.Context(), operator, KeyCompromise, device, neighbor)
	require.ErrorIs(t, err, ErrUnknown)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1", Force: true})
	assert.True(t, b.admitted(b.pair(device)))
	assert.False(t, b.admitted(fresh), "the revoked ones stay out")
	b.whole()
}

// A device that asks with a certificate which was revoked while it waited for its
// turn gets no other: who has a stolen key would have one for good.
func TestRenewByACertificateThatIsReplaced(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, csr := newCSR(t)
	stolen := b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: csr})[0].Certificate
	foreign := b.registerAll(Request{MAC: neighbor, SerialNumber: "SN-2"})[0].Certificate
	require.NoError(t, b.Check(t.Context(), device, stolen), "it is looked at before it has its turn")
	good := b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: csr, Force: true})[0].Certificate

	_, err := b.Renew(t.Context(), operator, device, csr, stolen)
	require.ErrorIs(t, err, ErrRevoked)
	_, err = b.Renew(t.Context(), operator, device, csr, foreign)
	require.ErrorIs(t, err, ErrUnknown)
	assert.Zero(t, b.events(RenewAction))
	_, err = b.Renew(t.Context(), operator, device, csr, good)
	require.NoError(t, err, "the control")
	b.whole()
}

// A device has few certificates that are valid at once, however often it renews one.
func TestFewValidCertificates(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, csr := newCSR(t)
	first := b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: csr})[0].Certificate
	for range maxValid - 1 {
		_, err := b.Renew(t.Context(), operator, device, csr, first)
		require.NoError(t, err)
	}
	_, err := b.Renew(t.Context(), operator, device, csr, first)
	require.ErrorIs(t, err, ErrTooMany)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1", CSR: csr, Force: true})
	var valid int
	require.NoError(t, b.cfg.Pool.QueryRow(t.Context(), "SELECT count(*) FROM certificate WHERE revoked_at IS NULL").Scan(&valid))
	assert.Equal(t, 1, valid, "an operator makes room")
	b.whole()
}

func TestRotateIssuer(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"})
	old := b.pair(device)
	// Another process's registrar is open meanwhile.
	other := b.another()
	issuer, err := b.RotateIssuer(t.Context(), operator, "")
	require.NoError(t, err)
	assert.True(t, b.admitted(old), "devices of the old issuing CA go on")
	results, err := other.Register(t.Context(), operator, Request{MAC: neighbor, SerialNumber: "SN-2"})
	require.NoError(t, err)
	assert.Equal(t, issuer.Raw, results[0].Issuer.Raw, "other processes sign by the new one")
	assert.True(t, b.admitted(b.pair(neighbor)))

	// It is needed until its last device has another certificate.
	count := func() int {
		_, err := b.Refresh(t.Context())
		require.NoError(t, err)
		all, err := b.authority.Authorities(t.Context())
		require.NoError(t, err)
		return len(all.Issuing)
	}
	require.Equal(t, 2, count())
	_, err = b.Renew(t.Context(), operator, device, nil, nil)
	require.NoError(t, err)
	require.Equal(t, 2, count(), "its certificate is still good")
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1", Force: true})
	require.Equal(t, 1, count())
	assert.False(t, b.admitted(old))
	assert.True(t, b.admitted(b.pair(device)) && b.admitted(b.pair(neighbor)))
	assert.Equal(t, 2, b.events(RotateAction))

	require.NoError(t, os.Rename(filepath.Join(b.dir, "certs", "root.key"), filepath.Join(b.dir, "offline.key")))
	_, err = b.RotateIssuer(t.Context(), operator, "")
	require.ErrorIs(t, err, identity.ErrRootOffline)
	b.registerAll(Request{MAC: macOf(1), SerialNumber: "SN-3"})
	_, err = b.RotateIssuer(t.Context(), operator, filepath.Join(b.dir, "offline.key"))
	require.NoError(t, err)
	b.whole()
}

func TestRefreshKeepsAYoungList(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	next, err := b.Refresh(t.Context())
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now().Add(listLife), next, time.Minute)
	before, err := b.cfg.Gate.CRLs()
	require.NoError(t, err)
	_, err = b.Refresh(t.Context())
	require.NoError(t, err)
	after, err := b.cfg.Gate.CRLs()
	require.NoError(t, err)
	assert.Equal(t, before, after)
	lists, err := identity.ParseLists(before)
	require.NoError(t, err)
	all, err := b.authority.Authorities(t.Context())
	require.NoError(t, err)
	third := listLife / 3
	for age, kept := range map[time.Duration]bool{0: true, third - time.Minute: true, third + time.Minute: false, listLife: false, -time.Hour: false} {
		got := current(lists, all.Issuing[0], nil, lists[0].ThisUpdate.Add(age))
		assert.Equal(t, kept, got != nil, "at an age of %s", age)
	}
	assert.Nil(t, current(lists, all.Issuing[0], []x509.RevocationListEntry{{SerialNumber: lists[0].Number}}, lists[0].ThisUpdate),
		"one that lacks an entry")

	// A spoilt or lost list is made anew.
	file := filepath.Join(b.dir, "mosquitto", "devices.crl")
	require.NoError(t, os.WriteFile(file, []byte("spoilt"), 0o600))
	_, err = b.Refresh(t.Context())
	require.NoError(t, err)
	require.NoError(t, os.Remove(file))
	_, err = b.Refresh(t.Context())
	require.NoError(t, err)
	assert.FileExists(t, file)
}

// Operations of several processes at once come out as if one after the other.
func TestProcessesDoNotMix(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	var wg sync.WaitGroup
	all := requests(12)
	for range 3 {
		r := b.another()
		wg.Go(func() {
			for i := range all {
				results, err := r.Register(t.Context(), operator, all[i])
				if assert.NoError(t, err) {
					assert.NoError(t, results[0].Err)
				}
			}
		})
	}
	wg.Wait()
	assert.Len(t, b.whole(), len(all))
	assert.Equal(t, len(all), b.events(Issue), "each once")
}

// Calls that come while one is under way cost the broker one reading together, and
// answer as if they had come one after the other.
func TestCallsAtOnceAreOneBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t).start()
	var batches atomic.Int64
	b.reached = func(place string) {
		if place == "committed" {
			batches.Add(1)
		}
	}
	const n = 40
	var issued atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			origin := Origin{Actor: macOf(i / 2).Dashed()}
			results, err := b.Register(t.Context(), origin, Request{MAC: macOf(i / 2), SerialNumber: "SN"})
			if assert.NoError(t, err) && assert.NoError(t, results[0].Err) && results[0].Issued {
				issued.Add(1)
			}
		})
	}
	wg.Wait()
	assert.EqualValues(t, n/2, issued.Load(), "each device was named twice")
	assert.Less(t, batches.Load(), int64(n/4))
	assert.Len(t, b.whole(), n/2)
	var own int
	require.NoError(t, b.cfg.Pool.QueryRow(t.Context(), "SELECT count(*) FROM audit WHERE actor = regexp_replace(mac, '(..)(?!$)', '\\1-', 'g')").Scan(&own))
	assert.Equal(t, n/2, own, "the audit trail knows who asked for each")
}

// Who gives up waiting does not stop the operation half-way.
func TestRegisterOutlastsItsCaller(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	b.reached = func(place string) {
		if place == "decided" {
			cancel()
		}
	}
	_, err := b.Register(ctx, operator, Request{MAC: device, SerialNumber: "SN-1"})
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return len(b.registered()) == 1 }, patience, 5*time.Millisecond)
	_, err = b.Refresh(t.Context()) // waits for the lock
	require.NoError(t, err)
	b.whole()
}

// Who has given up before anything was done for it is not registered later.
func TestRegisterLeavesOutWhoHasGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	other, err := pgx.Connect(t.Context(), b.dsn) // another process, at work
	require.NoError(t, err)
	free := sync.OnceFunc(func() { assert.NoError(t, other.Close(context.WithoutCancel(t.Context()))) })
	t.Cleanup(free)
	_, err = other.Exec(t.Context(), "SELECT pg_advisory_lock($1)", lockKey)
	require.NoError(t, err)
	waiting := func(n int) {
		t.Helper()
		require.Eventually(t, func() bool {
			b.queue.mu.Lock()
			defer b.queue.mu.Unlock()
			return b.queue.working && len(b.queue.calls) == n
		}, patience, time.Millisecond)
	}

	ctx, giveUp := context.WithCancel(t.Context())
	var gone sync.WaitGroup
	leaves := func(i int) {
		gone.Go(func() {
			_, err := b.Register(ctx, operator, Request{MAC: macOf(i), SerialNumber: "SN"})
			assert.ErrorIs(t, err, context.Canceled)
		})
	}
	leaves(0)
	waiting(0) // it is about to have its turn
	leaves(1)
	waiting(1) // this one is behind it
	stays := make(chan struct{})
	go func() {
		defer close(stays)
		results, err := b.Register(t.Context(), operator, Request{MAC: device, SerialNumber: "SN-1"})
		assert.True(t, err == nil && results[0].Issued)
	}()
	waiting(2)
	giveUp()
	gone.Wait()
	free()
	<-stays
	all := b.whole()
	require.Len(t, all, 1, "the control: the one that waited")
	assert.Equal(t, device, all[0].MAC)
}

// Standard tools agree about what we put in place.
func TestOpenSSLAgrees(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	b := newBench(t)
	b.registerAll(Request{MAC: device, SerialNumber: "SN-1"}, Request{MAC: neighbor, SerialNumber: "SN-2"})
	_, err := b.Revoke(t.Context(), operator, KeyCompromise, device)
	require.NoError(t, err)
	crl := filepath.Join(b.dir, "mosquitto", "devices.crl")
	verify := func(mac string) (string, error) {
		bundle := filepath.Join(b.cfg.Devices, mac)
		out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-CAfile", filepath.Join(bundle, "ca.crt"),
			"-CRLfile", crl, "-crl_check", "-purpose", "sslclient", filepath.Join(bundle, "device.crt")).CombinedOutput()
		return string(out), err
	}
	out, err := verify(neighbor.Dashed())
	require.NoError(t, err, out)
	out, err = verify(device.Dashed())
	require.Error(t, err)
	assert.Contains(t, out, "certificate revoked")
	text, err := exec.CommandContext(t.Context(), "openssl", "crl", "-in", crl, "-noout", "-text", "-CAfile", b.authority.CAFile()).CombinedOutput()
	require.NoError(t, err)
	assert.Contains(t, string(text), "verify OK")
	assert.Contains(t, string(text), "Key Compromise")
	assert.Contains(t, strings.ToLower(string(text)), serialOf(b.pair(device).Leaf))
}
