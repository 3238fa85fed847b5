package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/smallstep/pkcs7"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/watch"
)

// newcomer is a device that the fleet's metadata has and the registry has not.
const newcomer topic.MAC = "aabbccddeeff"

// claimable puts a device into the metadata.
func (m *testMesh) claimable(t *testing.T, mac topic.MAC, id int, code string) {
	t.Helper()
	conn, err := m.Superuser(t.Context(), mesh.DatabaseMetadata)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	_, err = conn.Exec(t.Context(), `
INSERT INTO `+mesh.MetadataSchema+`."Device" ("DeviceId", "DeviceName", "DeviceTemplateId", "ClaimingCode", "SerialNumber", "Uuid", "MacAddress")
SELECT $1, 'new', min("DeviceTemplateId"), $2, 'SN-' || $1::int, gen_random_uuid(), $3 FROM `+mesh.MetadataSchema+`."DeviceTemplate"`, id, code, string(mac))
	require.NoError(t, err)
}

// enrolment is one request to EST.
type enrolment struct {
	operation, user, code string
	certificate           *tls.Certificate
	csr                   []byte
}

// enrol answers the status and, if it is 200, the certificate.
func (m *testMesh) enrol(t *testing.T, e enrolment) (status int, certificate *x509.Certificate) {
	t.Helper()
	config := &tls.Config{RootCAs: m.roots(t), MinVersion: tls.VersionTLS12}
	if e.certificate != nil {
		config.Certificates = []tls.Certificate{*e.certificate}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"https://"+m.Address(m.Ports().EST)+"/.well-known/est/"+e.operation, bytes.NewReader(e.csr))
	require.NoError(t, err)
	request.Header.Set("Content-Type", "application/pkcs10")
	if e.user != "" {
		request.SetBasicAuth(e.user, e.code)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if response.StatusCode != http.StatusOK {
		return response.StatusCode, nil
	}
	der, err := base64.StdEncoding.DecodeString(string(bytes.ReplaceAll(text, []byte("\n"), nil)))
	require.NoError(t, err)
	message, err := pkcs7.Parse(der)
	require.NoError(t, err)
	require.Len(t, message.Certificates, 1)
	return response.StatusCode, message.Certificates[0]
}

func newRequest(t *testing.T, subject pkix.Name) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	require.NoError(t, err)
	return key, []byte(base64.StdEncoding.EncodeToString(der))
}

func pairOf(certificate *x509.Certificate, key *ecdsa.PrivateKey) *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}
}

// openCore is the registrar's core as a command has it.
func (m *testMesh) openCore(t *testing.T) *registrar.Core {
	t.Helper()
	r, err := registrar.Open(context.WithoutCancel(t.Context()), m.State, m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), m.Issuer, m.Secrets, m.Log)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

// audited is the audit trail as its stream has it.
func (m *testMesh) audited(t *testing.T) (events []registrar.Event) {
	t.Helper()
	for _, data := range m.messages(t, stream.Audit) {
		var e registrar.Event
		require.NoError(t, json.Unmarshal(data, &e))
		events = append(events, e)
	}
	return events
}

// messages are what a stream holds, subject and headers in front of each.
func (m *testMesh) messages(t *testing.T, stream string) (all [][]byte) {
	t.Helper()
	consumer, err := m.js.OrderedConsumer(t.Context(), stream, jetstream.OrderedConsumerConfig{})
	require.NoError(t, err)
	info, err := consumer.Info(t.Context())
	require.NoError(t, err)
	for range info.NumPending {
		msg, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		require.NoError(t, err)
		all = append(all, msg.Data())
	}
	return all
}

// TestEnrolment is a device's life: it enrols by its code, sends readings, enrols
// again, and is revoked.
func TestEnrolment(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.Registrar.Limits.RenewAfter = 0 })
	m.claimable(t, newcomer, 9001, "one good code")
	key, csr := newRequest(t, pkix.Name{})
	status, _ := m.enrol(t, enrolment{operation: "simpleenroll", user: string(newcomer), code: "a guess", csr: csr})
	require.Equal(t, http.StatusUnauthorized, status)
	status, first := m.enrol(t, enrolment{operation: "simpleenroll", user: string(newcomer), code: "one good code", csr: csr})
	require.Equal(t, http.StatusOK, status)

	login := func(pair *tls.Certificate) error {
		client, err := connectMQTT(m, &tls.Config{Certificates: []tls.Certificate{*pair}, RootCAs: m.roots(t), MinVersion: tls.VersionTLS12}, "x", nil)
		defer client.Disconnect(100)
		if err != nil {
			return err
		}
		return wait(client.Publish("tele/f2-"+string(newcomer)+"/sensor-mode/J1/sensor-1", 1, false, `{"data":"00"}`))
	}
	require.NoError(t, login(pairOf(first, key)))
	eventually(t, func() bool { return len(m.deadLetters(t, "f2.dead.decoder.>")) == 1 }, "the reading does not arrive: the metadata has no such pin, so it is a dead letter")

	nextKey, nextCSR := newRequest(t, first.Subject)
	status, second := m.enrol(t, enrolment{operation: "simplereenroll", certificate: pairOf(first, key), csr: nextCSR})
	require.Equal(t, http.StatusOK, status)
	require.NoError(t, login(pairOf(second, nextKey)))
	require.NoError(t, login(pairOf(first, key)), "the old one is good until it ends")

	core := m.openCore(t)
	_, err := core.Revoke(t.Context(), registrar.Origin{Actor: "operator"}, registrar.KeyCompromise, newcomer)
	require.NoError(t, err)
	for _, pair := range []*tls.Certificate{pairOf(first, key), pairOf(second, nextKey)} {
		require.Error(t, login(pair))
		status, _ = m.enrol(t, enrolment{operation: "simplereenroll", certificate: pair, csr: nextCSR})
		assert.Equal(t, http.StatusForbidden, status)
	}
	status, _ = m.enrol(t, enrolment{operation: "simpleenroll", user: string(newcomer), code: "one good code", csr: csr})
	assert.Equal(t, http.StatusUnauthorized, status)

	one, ok := credential.Find("mqtt_operator_password")
	require.True(t, ok)
	r := m.rotator(t)
	_, err = r.Run(t.Context(), r.Config(t.Context(), one))
	require.NoError(t, err)

	want := []string{"refuse wrong_code", "issue", "renew", "revoke", "refuse revoked", "refuse revoked", "refuse used_code", "rotate_secret"}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, want, summaries(m.audited(t)), "on the stream")
		trail, err := registrar.NewTrail(core.Pool.Pool).Since(t.Context(), time.Time{}, "", 1000)
		require.NoError(c, err)
		assert.Equal(c, want, summaries(trail), "in the table")
	}, time.Minute, 100*time.Millisecond)
}

// summaries leaves out what the start of the mesh has issued.
func summaries(events []registrar.Event) (all []string) {
	for _, e := range events {
		switch {
		case e.Actor == "up":
		case e.Action == registrar.Refuse:
			var reason string
			_, _ = fmt.Sscanf(e.Detail, "enrolment: %s", &reason)
			all = append(all, "refuse "+reason)
		default:
			all = append(all, string(e.Action))
		}
	}
	return all
}

// TestForeignTopic has the broker tell of a publish that it denied.
func TestForeignTopic(t *testing.T) {
	t.Parallel()
	m := startMesh(t, func(c *meshConfig) { c.WatchTopics = true })
	alarms, err := m.js.Conn().SubscribeSync(alarm.Subject("registrar", watch.ForeignTopic))
	require.NoError(t, err)
	client := m.device(t, mac)
	publish(t, client, "tele/f2-"+string(mac)+"/alarm-mode/J3/siren-1", `{"status":true}`)
	eventually(t, func() bool { return m.count(t, "SELECT count(*) FROM device_event") == 1 }, "the control: its own topic")
	publish(t, client, "tele/f2-000000000000/alarm-mode/J3/siren-1", `{"status":true}`)
	msg, err := alarms.NextMsg(time.Minute)
	require.NoError(t, err)
	var one alarm.Alarm
	require.NoError(t, json.Unmarshal(msg.Data, &one))
	assert.Equal(t, string(mac), one.Subject)
	assert.Contains(t, one.Detail, "tele/f2-000000000000/alarm-mode/J3/siren-1")
	_, err = alarms.NextMsg(200 * time.Millisecond)
	require.ErrorIs(t, err, nats.ErrTimeout, "one alarm, and none for its own topic")
}

// TestRegistrarProcess has the registrar as a process of its own enrol a device.
func TestRegistrarProcess(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.claimable(t, newcomer, 9001, "one good code")
	require.NoError(t, m.Stop(local.PartRegistrar))
	cmd := m.startProcess(t, local.PartRegistrar)
	eventually(t, func() bool { ready, _ := m.ready(t, local.PartRegistrar); return ready }, "it does not get ready")
	_, csr := newRequest(t, pkix.Name{})
	status, certificate := m.enrol(t, enrolment{operation: "simpleenroll", user: string(newcomer), code: "one good code", csr: csr})
	require.Equal(t, http.StatusOK, status)
	assert.Equal(t, newcomer.Dashed(), certificate.Subject.CommonName)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	require.NoError(t, cmd.Wait(), "a stop is not an error")
}
