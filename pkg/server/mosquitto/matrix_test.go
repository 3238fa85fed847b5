package mosquitto

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// issuerPair is the issuing CA of an authority, to sign what it never would.
func issuerPair(t *testing.T, a *identity.Authority) tls.Certificate {
	t.Helper()
	dir := filepath.Dir(a.CAFile())
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "issuer.crt"), filepath.Join(dir, "issuer.key"))
	require.NoError(t, err)
	return pair
}

func crl(t *testing.T, a *identity.Authority, list *x509.RevocationList) []byte {
	t.Helper()
	der, err := a.SignList(t.Context(), issuerPair(t, a).Leaf, list)
	require.NoError(t, err)
	return identity.EncodeList(der)
}

// clientTemplate is a certificate as a controller has it.
func clientTemplate(name string) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // never fails, see crypto/rand
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// signedBy makes a certificate for a new key; without an issuer it signs itself.
func signedBy(t *testing.T, issuer *tls.Certificate, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	parent, signer := template, crypto.PrivateKey(key)
	if issuer != nil {
		parent, signer = issuer.Leaf, issuer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if issuer != nil {
		pair.Certificate = append(pair.Certificate, issuer.Certificate[0])
	}
	pair.Leaf, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return pair
}

// handshake opens no MQTT session; nil means that the broker refuses the certificate.
func (b *gated) handshake(certificate tls.Certificate) net.Conn {
	b.t.Helper()
	config := b.tls()
	config.Certificates = []tls.Certificate{certificate}
	config.MaxVersion = tls.VersionTLS12 // refused within the handshake
	conn, err := (&tls.Dialer{Config: config}).DialContext(b.t.Context(), "tcp", b.broker.TLSAddress())
	if err != nil {
		return nil
	}
	return conn
}

// ask connects with a certificate, and publishes. let tells whether the broker let
// it in, took how many of the topics it took.
func (b *gated) ask(certificate tls.Certificate, topics ...string) (let bool, took int) {
	b.t.Helper()
	conn := b.handshake(certificate)
	if conn == nil {
		return false, 0
	}
	defer func() { _ = conn.Close() }()
	require.NoError(b.t, conn.SetDeadline(time.Now().Add(patience)))
	q := &questioner{conn: conn, in: bufio.NewReader(conn)}
	if q.connect("whoever") != nil {
		return false, 0
	}
	for _, name := range topics {
		granted, err := q.publish(name)
		require.NoError(b.t, err)
		if granted {
			took++
		}
	}
	return true, took
}

func TestClientCertificateMatrix(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	issuer := issuerPair(t, b.authority)
	other := issuerPair(t, newBench(t).authority)
	with := func(change func(*x509.Certificate)) *x509.Certificate {
		c := clientTemplate(device.Dashed())
		change(c)
		return c
	}
	good := signedBy(t, &issuer, clientTemplate(device.Dashed()))
	revoked := signedBy(t, &issuer, clientTemplate(device.Dashed()))
	b.admit(b.lists([]topic.MAC{device, neighbor}, revoked.Leaf))
	b.start()

	own, others := "tele/f2-e4fd45f654be/x", "tele/f2-e4fd45f654bf/x"
	let, took := b.ask(good, own, "tele/f2-e4-fd-45-f6-54-be/x")
	require.True(t, let, "the control")
	require.Equal(t, 2, took, "the control")

	refusedCount := 0
	shut := map[string]tls.Certificate{
		"expired":        signedBy(t, &issuer, with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })),
		"not yet valid":  signedBy(t, &issuer, with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })),
		"wrong CA":       signedBy(t, &other, clientTemplate(device.Dashed())),
		"serverAuth":     signedBy(t, &issuer, with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })),
		"self-signed":    signedBy(t, nil, clientTemplate(device.Dashed())),
		"revoked":        revoked,
		"signed by leaf": signedBy(t, &good, clientTemplate(neighbor.Dashed())),
	}
	for name, certificate := range shut {
		if let, _ := b.ask(certificate, own); !let {
			refusedCount++
		} else {
			assert.Fail(t, "let in", name)
		}
	}
	// These come from our CA, so the connection opens; the ACL has no name for them. (It
	// has one for a service's name, for which our CA signs no client's certificate:
	// mosquitto.conf says why the doors share an ACL.)
	nothing := map[string]struct {
		name   string
		topics []string
	}{
		"another's topic":   {device.Dashed(), []string{others, "tele/f2-e4-fd-45-f6-54-bf/x", "stat/f2-e4fd45f654bf/x", "cmnd/f2-e4fd45f654bf/sensor-mode/J1/sensor-1"}},
		"CN in upper case":  {"E4-FD-45-F6-54-BE", []string{own, "tele/f2-E4-FD-45-F6-54-BE/x", "tele/f2-E4FD45F654BE/x"}},
		"CN in mixed case":  {"e4-FD-45-f6-54-be", []string{own, "tele/f2-e4-FD-45-f6-54-be/x"}},
		"CN without dashes": {string(device), []string{own, "tele/f2-e4-fd-45-f6-54-be/x"}},
		"CN with colons":    {"e4:fd:45:f6:54:be", []string{own, "tele/f2-e4:fd:45:f6:54:be/x"}},
		"CN with wildcard":  {"+", []string{own}},
		"unregistered":      {"e4-fd-45-f6-54-aa", []string{"tele/f2-e4fd45f654aa/x", "tele/f2-e4-fd-45-f6-54-aa/x"}},
		"empty CN":          {"", []string{own}},
	}
	want := len(shut)
	for name, one := range nothing {
		_, took := b.ask(signedBy(t, &issuer, clientTemplate(one.name)), one.topics...)
		assert.Zero(t, took, name)
		want += len(one.topics)
		refusedCount += len(one.topics) - took
	}
	assert.Equal(t, want, refusedCount)
	let, took = b.ask(good, own)
	require.True(t, let && took == 1, "the control, still")
}

// Every device against every other's topics, read and write, in all spellings that are granted.
func TestACLCrossMatrix(t *testing.T) {
	t.Parallel()
	b := newGated(t)
	const fleet = 8
	macs := make([]topic.MAC, fleet)
	for i := range macs {
		macs[i] = topic.MAC(fmt.Sprintf("e4fd45f654b%x", i))
	}
	b.admit(b.lists(macs))
	b.start()
	spellings, err := granted(t.Context())
	require.NoError(t, err)
	number := len(spellings(device))
	writable := func(mac topic.MAC) (all []string) {
		for _, s := range spellings(mac) {
			all = append(all, "tele/f2-"+s+"/sensor-mode/J1/sensor-1", "stat/f2-"+s+"/access-control-mode/J1/strike-1",
				"cmnd/f2-"+s+"/sensor-mode/J1/sensor-1")
		}
		return all
	}
	commands := func(mac topic.MAC) (all []string) {
		for _, s := range spellings(mac) {
			all = append(all, "cmnd/f2-"+s+"/access-control-mode/J1/strike-1", "cmnd/f2-"+s+"/alarm-mode/J1/siren-1")
		}
		return all
	}

	foreign, refusals, own := 0, 0, 0
	for _, as := range macs {
		certificate := b.certificate(b.authority, b.devices, as)
		for _, mac := range macs {
			_, took := b.ask(certificate, writable(mac)...)
			if mac == as {
				own += took
				_, commanded := b.ask(certificate, commands(mac)...)
				assert.Zero(t, commanded, "a device commands itself")
				continue
			}
			all := append(writable(mac), commands(mac)...)
			_, tookAll := b.ask(certificate, all...)
			foreign += len(all)
			refusals += len(all) - tookAll
		}
	}
	assert.Equal(t, fleet*3*number, own, "the control: its own topics it may all write")
	assert.Equal(t, fleet*(fleet-1)*5*number, foreign)
	assert.Equal(t, foreign, refusals, "writes refused")

	// Reading: everybody subscribes to everything, and gets the own commands.
	clients, arrived := map[topic.MAC]mqtt.Client{}, map[topic.MAC]<-chan string{}
	for _, mac := range macs {
		clients[mac], arrived[mac] = listen(t, b.deviceOptions(mac), "#", "+/+/#", "cmnd/#", "tele/#", "stat/#")
	}
	bridge := connectMQTT(t, b.userOptions("bridge"))
	for _, mac := range macs {
		for _, name := range writable(mac)[:2] {
			wait(t, clients[mac].Publish(name, 1, false, "a reading of "+string(mac)))
		}
	}
	for _, mac := range macs {
		for _, name := range commands(mac) {
			wait(t, bridge.Publish(name, 1, false, string(mac)))
		}
	}
	for _, mac := range macs {
		last := commands(mac)[2*number-1] + "=" + string(mac)
		got := until(t, arrived[mac], last)
		for _, one := range got {
			assert.Contains(t, one, "="+string(mac), "only what was for %s", mac)
			assert.Contains(t, one, "cmnd/f2-")
		}
	}
	for _, mac := range macs {
		for len(arrived[mac]) > 0 {
			assert.Contains(t, <-arrived[mac], "="+string(mac), "nothing late for others")
		}
	}
}
