package est

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/hostile"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/services/registrar"
)

func right() credential { return credential{user: device.Dashed(), code: code} }

func TestCACertificates(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	a := b.do(credential{}, http.MethodGet, "cacerts", nil, "")
	require.Equal(t, http.StatusOK, a.status)
	assert.Equal(t, "application/pkcs7-mime; smime-type=certs-only", a.header.Get("Content-Type"))
	assert.Equal(t, "base64", a.header.Get("Content-Transfer-Encoding"))
	require.Len(t, a.certificates, 2)
	assert.True(t, a.certificates[0].Equal(b.root))
	assert.True(t, a.certificates[1].Equal(b.issuer))
	assert.Equal(t, http.StatusNoContent, b.do(credential{}, http.MethodGet, "csrattrs", nil, "").status)
	assert.Equal(t, http.StatusMethodNotAllowed, b.do(credential{}, http.MethodPost, "cacerts", nil, "").status)
	assert.Equal(t, http.StatusNotFound, b.do(credential{}, http.MethodPost, "serverkeygen", nil, "").status)
}

func TestEnrolAndReenrol(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	key := newKey(t)
	a := b.post(right(), "simpleenroll", newCSR(t, key, named("")))
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Len(t, a.certificates, 1, "RFC 7030 4.2.3: the issued certificate and nothing else")
	first := a.certificates[0]
	assert.True(t, key.PublicKey.Equal(first.PublicKey))
	assert.Equal(t, device.Dashed(), first.Subject.CommonName)

	next := newKey(t)
	a = b.post(shown(first, key), "simplereenroll", newCSR(t, next, x509.CertificateRequest{Subject: first.Subject}))
	require.Equal(t, http.StatusOK, a.status, a.body)
	require.Len(t, a.certificates, 1)
	assert.True(t, next.PublicKey.Equal(a.certificates[0].PublicKey))
	assert.Empty(t, b.details(), "nobody was refused")
}

// Whatever is wrong with name or code, the answer is the same to the byte.
func TestWrongCode(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	csr := newCSR(t, newKey(t), named(""))
	wrong := []credential{
		{user: device.Dashed(), code: "guess"},
		{user: device.Dashed(), code: ""},
		{user: device.Dashed(), code: code + "x"},
		{user: device.Dashed(), code: strings.ToUpper(code)},
		{user: "00-00-00-00-00-00", code: code},     // unknown
		{user: "e4-fd-45-f6-54-bf", code: ""},       // has no code
		{user: "e4-fd-45-f6-54-c0", code: ""},       // has an empty one
		{user: "no mac'; --", code: "other code"},   // a device without a MAC has it
		{user: strings.Repeat("e", 3000), code: ""}, // long
	}
	var first answer
	for i, who := range wrong {
		a := b.post(who, "simpleenroll", csr)
		require.Equal(t, http.StatusUnauthorized, a.status, i)
		a.header.Del("Date")
		if i == 0 {
			first = a
		}
		assert.Equal(t, first, a, "%d is told apart", i)
	}
	assert.Contains(t, first.header.Get("WWW-Authenticate"), "Basic")
	require.Len(t, b.details(), len(wrong), "each is on the audit trail, as long as they are few")
	assert.Equal(t, string(device)+" enrolment: wrong_code", b.details()[0])
	assert.Equal(t, "000000000000 enrolment: unknown_device", b.details()[4])

	without := b.post(credential{}, "simpleenroll", csr)
	assert.Equal(t, http.StatusUnauthorized, without.status)
	assert.Len(t, b.details(), len(wrong), "asking without credentials is how clients begin")
	assert.Zero(t, b.registered)
	assert.Equal(t, http.StatusOK, b.post(right(), "simpleenroll", csr).status, "the control")

	replayed := b.post(right(), "simpleenroll", csr)
	replayed.header.Del("Date")
	assert.Equal(t, first, replayed, "a used code is told apart")
	assert.NotContains(t, b.log.String()+strings.Join(b.details(), ""), "guess", "codes are in no log")
	assert.NotContains(t, b.log.String()+strings.Join(b.details(), ""), code)
}

// The key is right: what is missing is in the metadata, and the code stays good.
func TestNoSerialNumberInTheMetadata(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	for mac, code := range map[string]string{"e4-fd-45-f6-54-c1": "code g", "e4-fd-45-f6-54-c2": "code h"} {
		who := credential{user: mac, code: code}
		csr := newCSR(t, newKey(t), named(""))
		for range 2 {
			a := b.post(who, "simpleenroll", csr)
			assert.Equal(t, http.StatusForbidden, a.status)
			assert.Contains(t, a.body, "refused: no serial number in the metadata")
			assert.NotContains(t, a.body, "key must be")
		}
		who.code = "guess"
		assert.Equal(t, http.StatusUnauthorized, b.post(who, "simpleenroll", csr).status, "whoever has no code learns nothing")
		who.code = code
		_, err := b.pool.Exec(t.Context(), `UPDATE fleet."Device" SET "SerialNumber" = 'SN-7' WHERE "ClaimingCode" = $1`, code)
		require.NoError(t, err)
		assert.Equal(t, http.StatusOK, b.post(who, "simpleenroll", csr).status)
	}
}

// A code opens once: not again after a restart, and not for two at once.
func TestCodeOpensOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	csr := newCSR(t, newKey(t), named(device.Dashed()))
	var wait sync.WaitGroup
	answers := make([]answer, 20)
	for i := range answers {
		wait.Go(func() { answers[i] = b.post(right(), "simpleenroll", csr) })
	}
	wait.Wait()
	granted := 0
	for _, a := range answers {
		if a.status == http.StatusOK {
			granted++
		} else {
			assert.Equal(t, http.StatusUnauthorized, a.status)
		}
	}
	assert.Equal(t, 1, granted)
	assert.Equal(t, 1, b.registered)

	b.stop()
	b.mu.Lock()
	delete(b.devices, device) // also where the registry no longer knows the device
	b.mu.Unlock()
	b.serve(t, wide)
	assert.Equal(t, http.StatusUnauthorized, b.post(right(), "simpleenroll", csr).status)
	_, err := b.pool.Exec(t.Context(), `UPDATE fleet."Device" SET "ClaimingCode" = 'new code' WHERE "DeviceId" = 1`)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, b.post(credential{user: string(device), code: "new code"}, "simpleenroll", csr).status, "the control: the next code does")
}

// What fails for no fault of the code leaves it good.
func TestCodeIsNotBurnt(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	csr := newCSR(t, newKey(t), named(device.Dashed()))
	assert.Equal(t, http.StatusBadRequest, b.post(right(), "simpleenroll", []byte("not a CSR")).status)
	b.mu.Lock()
	b.err = errors.New("the registry is away")
	b.mu.Unlock()
	a := b.post(right(), "simpleenroll", csr)
	assert.Equal(t, http.StatusServiceUnavailable, a.status)
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	assert.NotContains(t, a.body, "registry", "what is wrong with us is in the log")
	b.mu.Lock()
	b.err = nil
	b.mu.Unlock()
	assert.Equal(t, http.StatusOK, b.post(right(), "simpleenroll", csr).status)
}

func TestRegisteredAndRevokedDevices(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	csr := newCSR(t, newKey(t), named(""))
	for _, status := range []registrar.DeviceStatus{registrar.Active, registrar.Revoked} {
		b.mu.Lock()
		b.devices[device] = status
		b.mu.Unlock()
		assert.Equal(t, http.StatusForbidden, b.post(right(), "simpleenroll", csr).status, status)
	}
}

func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	good := newCSR(t, newKey(t), named(device.Dashed()))
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	other := newCSR(t, newKey(t), named("e4-fd-45-f6-54-bf"))
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	odd, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	encode := func(der []byte) string { return base64.StdEncoding.EncodeToString(der) }
	for name, c := range map[string]struct {
		body, kind string
		status     int
	}{
		"nothing":            {"", "application/pkcs10", http.StatusBadRequest},
		"no base64":          {"%%%", "application/pkcs10", http.StatusBadRequest},
		"binary":             {string(good), "application/pkcs10", http.StatusBadRequest},
		"no CSR":             {encode([]byte("hello")), "application/pkcs10", http.StatusBadRequest},
		"a certificate":      {encode(b.root.Raw), "application/pkcs10", http.StatusBadRequest},
		"truncated":          {encode(good[:len(good)-10]), "application/pkcs10", http.StatusBadRequest},
		"something behind":   {encode(append(bytes.Clone(good), 0)), "application/pkcs10", http.StatusBadRequest},
		"a weak key":         {encode(newCSR(t, weak, named(device.Dashed()))), "application/pkcs10", http.StatusBadRequest},
		"an odd curve":       {encode(newCSR(t, odd, named(device.Dashed()))), "application/pkcs10", http.StatusBadRequest},
		"a wrong signature":  {encode(forged), "application/pkcs10", http.StatusBadRequest},
		"another device's":   {encode(other), "application/pkcs10", http.StatusBadRequest},
		"another type":       {encode(good), "application/json", http.StatusUnsupportedMediaType},
		"no type":            {encode(good), "", http.StatusUnsupportedMediaType},
		"too large":          {strings.Repeat("A", web.MaxBody+1), "application/pkcs10", http.StatusRequestEntityTooLarge},
		"large and spacious": {strings.Repeat(" ", web.MaxBody+1) + encode(good), "application/pkcs10", http.StatusRequestEntityTooLarge},
	} {
		a := b.do(right(), http.MethodPost, "simpleenroll", []byte(c.body), c.kind)
		assert.Equal(t, c.status, a.status, "%s: %s", name, a.body)
	}
	a := b.do(right(), http.MethodPost, "simpleenroll", []byte(" "+strings.ReplaceAll(encode(good), "A", "\r\n A\t")+"\n"), "Application/PKCS10; charset=utf-8")
	assert.Equal(t, http.StatusOK, a.status, "the control, in RFC 8951's looser base64: %s", a.body)
}

// A CSR that asks for more than it should gets a device's certificate.
func TestExtensionsAreIgnored(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	ca, err := asn1.Marshal(struct{ CA bool }{true})
	require.NoError(t, err)
	usage, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}}) // serverAuth
	require.NoError(t, err)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	a := b.post(right(), "simpleenroll", newCSR(t, key, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: string(device), Organization: []string{"evil"}},
		DNSNames: []string{"localhost", "bridge"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: ca},
			{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: usage},
		},
	}))
	require.Equal(t, http.StatusOK, a.status, a.body)
	c := a.certificates[0]
	assert.False(t, c.IsCA)
	assert.Empty(t, c.DNSNames)
	assert.Empty(t, c.IPAddresses)
	assert.Empty(t, c.Subject.Organization)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, c.ExtKeyUsage)
}

func TestReenrolIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	const other topic.MAC = "e4fd45f654bf"
	b.devices[device], b.devices[other] = registrar.Active, registrar.Active
	key := newKey(t)
	own := b.deviceCertificate(device, &key.PublicKey)
	csr := newCSR(t, newKey(t), x509.CertificateRequest{Subject: own.Subject})
	expired := b.sign(&x509.Certificate{
		Subject: own.Subject, ExtKeyUsage: own.ExtKeyUsage,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	}, &key.PublicKey, b.issuer, b.key)
	early := b.sign(&x509.Certificate{
		Subject: own.Subject, ExtKeyUsage: own.ExtKeyUsage,
		NotBefore: time.Now().Add(time.Hour), NotAfter: time.Now().Add(2 * time.Hour),
	}, &key.PublicKey, b.issuer, b.key)
	server := b.sign(&x509.Certificate{Subject: own.Subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, &key.PublicKey, b.issuer, b.key)
	stranger := newAuthority(t)
	revoked := b.deviceCertificate(device, &key.PublicKey)
	b.revoked[revoked.SerialNumber.String()] = true
	gone := b.deviceCertificate("e4fd45f654c0", &key.PublicKey)

	for name, who := range map[string]credential{
		"no_certificate":                               {},
		"no_certificate, but":                          right(), // a code does not do here
		"expired_certificate":                          shown(expired, key),
		"expired_certificate, or rather not yet valid": shown(early, key),
		"foreign_certificate":                          shown(stranger.deviceCertificate(device, &key.PublicKey), key),
		"foreign_certificate, self-signed":             shown(stranger.sign(&x509.Certificate{Subject: own.Subject, ExtKeyUsage: own.ExtKeyUsage}, &key.PublicKey, own, key), key),
		"foreign_certificate, for servers":             shown(server, key),
		"revoked":                                      shown(revoked, key),
		"unknown_device":                               shown(gone, key),
	} {
		a := b.post(who, "simplereenroll", csr)
		assert.Equal(t, http.StatusForbidden, a.status, "%s: %s", name, a.body)
		reason, _, _ := strings.Cut(name, ",")
		last := b.details()[len(b.details())-1]
		assert.Contains(t, last, "enrolment: "+reason)
	}

	// Another's name, or more in the name, with a certificate that is good.
	for _, subject := range []pkix.Name{
		{CommonName: other.Dashed(), SerialNumber: "SN-1"},
		{CommonName: device.Dashed()},
		{CommonName: device.Dashed(), SerialNumber: "SN-1", Organization: []string{"more"}},
		{},
	} {
		a := b.post(shown(own, key), "simplereenroll", newCSR(t, newKey(t), x509.CertificateRequest{Subject: subject}))
		assert.Equal(t, http.StatusBadRequest, a.status, subject)
	}
	a := b.post(shown(own, key), "simplereenroll", csr)
	require.Equal(t, http.StatusOK, a.status, "the control: %s", a.body)

	b.mu.Lock()
	b.devices[device] = registrar.Revoked
	b.mu.Unlock()
	assert.Equal(t, http.StatusForbidden, b.post(shown(own, key), "simplereenroll", csr).status, "the device was revoked")
	_, err := b.try(shown(own, newKey(t)), http.MethodPost, "simplereenroll", nil, "application/pkcs10")
	require.Error(t, err, "a certificate without its key gets no connection")
}

// few lets each device have three refusals, and forgives none.
var few = Limits{SourceRate: 1e6, SourceBurst: 1e6, DeviceRate: 0.0001, DeviceBurst: 3}

func TestSourceRate(t *testing.T) {
	t.Parallel()
	b := newBench(t, Limits{SourceRate: 0.001, SourceBurst: 3, DeviceRate: 1, DeviceBurst: 1})
	for range 3 {
		assert.Equal(t, http.StatusOK, b.do(credential{}, http.MethodGet, "cacerts", nil, "").status)
	}
	assert.Equal(t, http.StatusTooManyRequests, b.do(credential{}, http.MethodGet, "cacerts", nil, "").status)
	assert.Empty(t, b.details(), "who is too fast does not fill the audit trail")
}

// A device has a few wrong codes, whoever tries them and however many at once, and a
// restart gives it no more. Whoever spends them stops no renewal.
func TestGuessing(t *testing.T) {
	t.Parallel()
	b := newBench(t, few)
	csr := newCSR(t, newKey(t), named(""))
	guess := func(mac string) int { return b.post(credential{user: mac, code: "guess"}, "simpleenroll", csr).status }
	var wait sync.WaitGroup
	statuses := make([]int, 20)
	for i := range statuses {
		wait.Go(func() { statuses[i] = guess(string(device)) })
	}
	wait.Wait()
	tried := 0
	for _, status := range statuses {
		if status == http.StatusUnauthorized {
			tried++
		} else {
			assert.Equal(t, http.StatusTooManyRequests, status)
		}
	}
	assert.Equal(t, few.DeviceBurst, tried)
	b.stop()
	b.serve(t, few)
	a := b.post(right(), "simpleenroll", csr)
	assert.Equal(t, http.StatusTooManyRequests, a.status, "after a restart the right code is not tried either")
	assert.NotEmpty(t, a.header.Get("Retry-After"))
	assert.Equal(t, http.StatusUnauthorized, guess("e4-fd-45-f6-54-bf"), "another device has a bucket of its own")

	for range few.DeviceBurst + 1 { // of a device that we do not know
		tried = guess("00-00-00-00-00-01")
	}
	assert.Equal(t, http.StatusTooManyRequests, tried, "it is told apart")

	key := newKey(t)
	own := b.deviceCertificate(device, &key.PublicKey)
	b.devices[device] = registrar.Active
	for range few.DeviceBurst + 1 {
		a = b.post(shown(own, key), "simplereenroll", newCSR(t, newKey(t), x509.CertificateRequest{Subject: own.Subject}))
		assert.Equal(t, http.StatusOK, a.status, "a renewal is charged for nothing: %s", a.body)
	}
}

// Right codes are not charged, so a device that has to ask often may.
func TestRightCodesAreFree(t *testing.T) {
	t.Parallel()
	b := newBench(t, few)
	for range 2 * few.DeviceBurst {
		assert.Equal(t, http.StatusBadRequest, b.post(right(), "simpleenroll", []byte("not a CSR")).status)
	}
	assert.Equal(t, http.StatusOK, b.post(right(), "simpleenroll", newCSR(t, newKey(t), named(""))).status)
	var left int
	require.NoError(t, b.pool.QueryRow(t.Context(), "SELECT count(*) FROM guess").Scan(&left))
	assert.Zero(t, left)
}

// Refused renewals are charged, apart from codes.
func TestRefusedRenewals(t *testing.T) {
	t.Parallel()
	b := newBench(t, few)
	key := newKey(t)
	own := b.deviceCertificate(device, &key.PublicKey)
	b.devices[device] = registrar.Active
	for range few.DeviceBurst {
		assert.Equal(t, http.StatusBadRequest, b.post(shown(own, key), "simplereenroll", []byte("not a CSR")).status)
	}
	assert.Equal(t, http.StatusTooManyRequests, b.post(shown(own, key), "simplereenroll", newCSR(t, newKey(t), x509.CertificateRequest{Subject: own.Subject})).status)
	assert.Equal(t, http.StatusUnauthorized, b.post(credential{user: string(device), code: "guess"}, "simpleenroll", newCSR(t, key, named(""))).status)
}

func TestRenewalThatIsNotDue(t *testing.T) {
	t.Parallel()
	limits := wide
	limits.RenewAfter = 0.5
	b := newBench(t, limits)
	b.devices[device] = registrar.Active
	renew := func(over, left time.Duration) answer {
		key := newKey(t)
		own := b.sign(&x509.Certificate{
			Subject: pkix.Name{CommonName: device.Dashed(), SerialNumber: "SN-1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
			NotBefore: time.Now().Add(-over), NotAfter: time.Now().Add(left),
		}, &key.PublicKey, b.issuer, b.key)
		return b.post(shown(own, key), "simplereenroll", newCSR(t, newKey(t), x509.CertificateRequest{Subject: own.Subject}))
	}
	a := renew(time.Hour, 2*time.Hour)
	assert.Equal(t, http.StatusForbidden, a.status)
	assert.Contains(t, a.body, "not due")
	assert.Equal(t, http.StatusOK, renew(2*time.Hour, time.Hour).status, "the control")
	assert.Equal(t, []string{string(device) + " enrolment: not_due"}, b.details())
}

// Who guesses is told of, also after a restart: the registry remembers.
func TestGuessed(t *testing.T) {
	t.Parallel()
	pool := registry(t)
	limits := wide
	claims := NewRegistry(pool, limits)
	guess := func(mac topic.MAC, known bool, n int) {
		for range n {
			ok, err := claims.Guess(t.Context(), mac, known)
			require.NoError(t, err)
			require.True(t, ok)
		}
	}
	guess(device, true, guessesOfDevice-1)
	guess("000000000001", false, guessesOfDevice)
	found, err := claims.Guessed(t.Context())
	require.NoError(t, err)
	assert.Empty(t, found, "too few, and of a device that has no code")
	guess(device, true, 1)
	claims = NewRegistry(pool, limits)
	found, err = claims.Guessed(t.Context())
	require.NoError(t, err)
	require.Len(t, found, 1)
	assert.Contains(t, found[string(device)], "5 wrong claiming codes")
	guess("000000000001", false, guessesOfFleet)
	found, err = claims.Guessed(t.Context())
	require.NoError(t, err)
	assert.Contains(t, found, everyDevice)
	_, err = pool.Exec(t.Context(), "UPDATE guess SET last = now() - interval '61 minutes'")
	require.NoError(t, err)
	found, err = claims.Guessed(t.Context())
	require.NoError(t, err)
	assert.Empty(t, found, "an hour later")
}

// A flood of refusals is counted on the audit trail, not written out, and hides no
// refusal of another kind.
func TestTrailIsNotFlooded(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	trail := newTrail(a, nil)
	for range 1000 {
		trail.refused(t.Context(), unauthorised(device, "wrong_code"), "192.0.2.1")
	}
	require.Len(t, a.details(), toldAtOnce)
	trail.refused(t.Context(), forbidden(device, "revoked", ""), "192.0.2.2")
	require.Len(t, a.details(), toldAtOnce+1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	trail.run(ctx) // it ends, and tells
	trail.tell(t.Context())
	require.Len(t, a.details(), toldAtOnce+2)
	assert.Equal(t, " enrolment: wrong_code, 990 more times; from 192.0.2.1 (990); as e4-fd-45-f6-54-be (990)", a.details()[toldAtOnce+1])
}

// TestHostileClients: EST stands its attackers.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	roots := x509.NewCertPool()
	roots.AddCert(b.root)
	target := hostile.Victim{
		Address: b.address, Path: "/.well-known/est/simpleenroll",
		TLS: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12},
	}
	var attackers sync.WaitGroup
	for _, a := range hostile.Attacks(target.Path) {
		attackers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			out, err := a.Do(ctx, target)
			assert.NoError(t, err, a.Name) //nolint:testifylint // not the test's goroutine
			assert.NotEqual(t, http.StatusOK, out.Status, a.Name)
		})
	}
	assert.Equal(t, http.StatusOK, b.post(right(), "simpleenroll", newCSR(t, newKey(t), named(""))).status, "meanwhile")
	attackers.Wait()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t, wide)
	old := b.dial(tlsVersion(0x0302))
	require.Error(t, old, "TLS 1.1")
	require.NoError(t, b.dial(tlsVersion(0x0303)), "the control: TLS 1.2")

	before := b.serverSerial()
	b.certificates()
	require.Eventually(t, func() bool { return b.serverSerial() != before }, 10*time.Second, 10*time.Millisecond, "a renewed certificate needs no restart")
}
