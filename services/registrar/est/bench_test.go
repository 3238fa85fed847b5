package est

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/smallstep/pkcs7"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/postgres/postgrestest"
	"github.com/f2mesh/f2mesh/services/registrar"
)

var cluster postgrestest.Shared

func TestMain(m *testing.M) { os.Exit(cluster.Main(m, nil)) }

const (
	device = topic.MAC("e4fd45f654be")
	code   = "correct horse battery staple"
)

// authority is a CA in memory, with a list of what it has issued. Register and
// Renew take the public key of a CSR and nothing else, as the registrar does.
type authority struct {
	t               *testing.T
	root, issuer    *x509.Certificate
	rootKey, key    *ecdsa.PrivateKey
	mu              sync.Mutex // guards the fields below
	devices         map[topic.MAC]registrar.DeviceStatus
	revoked         map[string]bool // by serial number
	err             error           // of every operation
	events          []registrar.Event
	registered, seq int
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, devices: map[topic.MAC]registrar.DeviceStatus{}, revoked: map[string]bool{}}
	a.root, a.rootKey = a.ca("root", nil, nil)
	a.issuer, a.key = a.ca("issuer", a.root, a.rootKey)
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	return key
}

func (a *authority) ca(name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key := newKey(a.t)
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	return a.sign(template, &key.PublicKey, parent, parentKey), key
}

func (a *authority) sign(template *x509.Certificate, public crypto.PublicKey, parent *x509.Certificate, key crypto.Signer) *x509.Certificate {
	a.t.Helper()
	a.seq++
	template.SerialNumber = big.NewInt(int64(a.seq))
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	require.NoError(a.t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(a.t, err)
	return certificate
}

func (a *authority) deviceCertificate(mac topic.MAC, public crypto.PublicKey) *x509.Certificate {
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: mac.Dashed(), SerialNumber: "SN-1"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, public, a.issuer, a.key)
}

func (a *authority) Register(_ context.Context, _ registrar.Origin, requests ...registrar.Request) ([]registrar.RequestResult, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return nil, a.err
	}
	r := requests[0]
	switch a.devices[r.MAC] {
	case registrar.Active:
		return []registrar.RequestResult{{}}, nil
	case registrar.Revoked:
		return []registrar.RequestResult{{Err: registrar.ErrRevoked}}, nil
	}
	a.devices[r.MAC] = registrar.Active
	a.registered++
	return []registrar.RequestResult{{Issued: true, Certificate: a.deviceCertificate(r.MAC, r.CSR.PublicKey), Issuer: a.issuer}}, nil
}

func (a *authority) Renew(_ context.Context, _ registrar.Origin, mac topic.MAC, csr *x509.CertificateRequest, shown *x509.Certificate) (registrar.RequestResult, error) {
	if shown == nil {
		return registrar.RequestResult{}, errors.New("a device renews by its certificate")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return registrar.RequestResult{Issued: true, Certificate: a.deviceCertificate(mac, csr.PublicKey), Issuer: a.issuer}, a.err
}

func (a *authority) Check(_ context.Context, mac topic.MAC, c *x509.Certificate) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.revoked[c.SerialNumber.String()] || a.devices[mac] == registrar.Revoked:
		return registrar.ErrRevoked
	case a.devices[mac] == "":
		return registrar.ErrUnknown
	}
	return nil
}

func (a *authority) Record(_ context.Context, events ...registrar.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, events...)
	return nil
}

func (a *authority) details() (all []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		all = append(all, string(e.MAC)+" "+e.Detail)
	}
	return all
}

func (a *authority) trusted() ([]*x509.Certificate, error) {
	return []*x509.Certificate{a.root, a.issuer}, nil
}

// bench is a server with metadata and registry in PostgreSQL.
type bench struct {
	*authority
	pool     *pgxpool.Pool
	url, dir string
	log      *bytes.Buffer
	stop     func()
	address  string
}

// wide limits hold nobody up.
var wide = Limits{SourceRate: 1e6, SourceBurst: 1e6, DeviceRate: 1e6, DeviceBurst: 1e6}

func newBench(t *testing.T, l Limits) *bench {
	t.Helper()
	b := &bench{authority: newAuthority(t), dir: t.TempDir()}
	b.pool = registry(t)
	b.certificates()
	b.serve(t, l)
	return b
}

// registry is a database with the registry's tables and one device's metadata.
func registry(t *testing.T) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), cluster.NewDatabase(t, ""))
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	db := stdlib.OpenDBFromPool(pool)
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("../migrations"))
	require.NoError(t, err)
	_, err = provider.Up(t.Context())
	require.NoError(t, err)
	require.NoError(t, db.Close())
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	require.NoError(t, fleet.CreateSchema(t.Context(), conn.Conn(), "fleet"))
	_, err = conn.Exec(t.Context(), `
INSERT INTO fleet."DeviceType" VALUES (1, 'Controller');
INSERT INTO fleet."DeviceTemplate" VALUES (1, 1, 'F2 controller');
INSERT INTO fleet."Device" ("DeviceId", "DeviceName", "DeviceTemplateId", "ClaimingCode", "SerialNumber", "Uuid", "MacAddress") VALUES
  (1, 'a', 1, '`+code+`', 'SN-1', gen_random_uuid(), 'E4:FD:45:F6:54:BE'),
  (7, 'g', 1, 'code g', NULL, gen_random_uuid(), 'E4:FD:45:F6:54:C1'),
  (8, 'h', 1, 'code h', ' ', gen_random_uuid(), 'E4:FD:45:F6:54:C2'),
  (2, 'without a code', 1, NULL, 'SN-2', gen_random_uuid(), 'e4fd45f654bf'),
  (3, 'with an empty code', 1, '', 'SN-3', gen_random_uuid(), 'e4fd45f654c0'),
  (4, 'without a MAC', 1, 'other code', NULL, gen_random_uuid(), '')`)
	require.NoError(t, err)
	return pool
}

// certificates writes ca.crt and the server's pair.
func (b *bench) certificates() {
	key := newKey(b.t)
	certificate := b.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &key.PublicKey, b.issuer, b.key)
	writePEM(b.t, filepath.Join(b.dir, "ca.crt"), b.root, b.issuer)
	writePEM(b.t, filepath.Join(b.dir, "server.crt"), certificate, b.issuer)
	writeKey(b.t, filepath.Join(b.dir, "server.key"), key)
}

func writePEM(t *testing.T, path string, certificates ...*x509.Certificate) {
	t.Helper()
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	require.NoError(t, os.WriteFile(path, text, 0o600))
}

func writeKey(t *testing.T, path string, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
}

// serve starts the server, again on the same registry if it was stopped.
func (b *bench) serve(t *testing.T, l Limits) {
	t.Helper()
	b.log = &bytes.Buffer{}
	server, err := New(Config{
		Authority: b, Standing: b, Codes: NewMetadata(b.pool, "fleet"), Claims: NewRegistry(b.pool, l), Recorder: b,
		Trusted: b.trusted, Limits: l, Log: slog.New(slog.NewTextHandler(&locked{w: b.log}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, prometheus.NewRegistry())
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	b.address = listener.Addr().String()
	b.url = "https://" + b.address + "/.well-known/est/"
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- server.Serve(ctx, listener, filepath.Join(b.dir, "server.crt"), filepath.Join(b.dir, "server.key"))
	}()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			assert.NoError(t, <-served)
		})
	}
	t.Cleanup(b.stop)
}

// locked is a writer for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// credential is what a client shows: a certificate, or a name and a code.
type credential struct {
	certificate *tls.Certificate
	user, code  string
}

func shown(certificate *x509.Certificate, key *ecdsa.PrivateKey) credential {
	return credential{certificate: &tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}}
}

// answer is what came back.
type answer struct {
	status       int
	header       http.Header
	body         string
	certificates []*x509.Certificate
}

// post sends a CSR in base64.
func (b *bench) post(who credential, operation string, csr []byte) answer {
	return b.do(who, http.MethodPost, operation, []byte(base64.StdEncoding.EncodeToString(csr)), "application/pkcs10")
}

func (b *bench) do(who credential, method, operation string, body []byte, contentType string) answer {
	b.t.Helper()
	a, err := b.try(who, method, operation, body, contentType)
	require.NoError(b.t, err)
	return a
}

func (b *bench) try(who credential, method, operation string, body []byte, contentType string) (answer, error) {
	b.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(b.root)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if who.certificate != nil {
		config.Certificates = []tls.Certificate{*who.certificate}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(context.Background(), method, b.url+operation, bytes.NewReader(body))
	require.NoError(b.t, err)
	request.Header.Set("Content-Type", contentType)
	if who.user != "" {
		request.SetBasicAuth(who.user, who.code)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(b.t, err)
	a := answer{status: response.StatusCode, header: response.Header, body: string(text)}
	if a.status == http.StatusOK {
		a.certificates = certificatesOf(b.t, text)
	}
	return a, nil
}

func certificatesOf(t *testing.T, text []byte) []*x509.Certificate {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(text, []byte("\n"), nil)))
	require.NoError(t, err)
	message, err := pkcs7.Parse(der)
	require.NoError(t, err)
	return message.Certificates
}

func newCSR(tb testing.TB, key crypto.Signer, template x509.CertificateRequest) []byte {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	require.NoError(tb, err)
	return der
}

func named(name string) x509.CertificateRequest {
	return x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}
}
