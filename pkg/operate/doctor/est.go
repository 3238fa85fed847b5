package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// Paths of EST (RFC 7030).
const (
	estCertificates = "/.well-known/est/cacerts"
	estEnrol        = "/.well-known/est/simpleenroll"
	estReenrol      = "/.well-known/est/simplereenroll"
)

// mostGuesses is how many wrong claiming codes the doctor tries for one MAC.
const mostGuesses = 12

func estChecks() []Check {
	const fix = "run the registrar as built, with its --est-… settings as shipped; nothing but it may listen on that port"
	return []Check{
		{
			"est-limits", "Resource limits", "EST with slow, oversized and malformed requests, and with many connections of one address", fix,
			func(ctx context.Context, m *Mesh) Finding { return m.strict(ctx, m.Ports.EST, "EST", estCertificates) },
		},
		{"est-guessing", "Authentication tests", fmt.Sprintf("EST with %d wrong claiming codes for one MAC, one after the other", mostGuesses), fix, estGuessing},
		{"est-renewal", "Production Hardening: Certificate management", "EST with a certificate that is not due, and without a CSR, so that nothing is issued", fix, estRenewal},
	}
}

// estClient asks EST, with a certificate if there is one.
func (m *Mesh) estClient(certificates ...tls.Certificate) (*http.Client, error) {
	config, err := m.tls()
	if err != nil {
		return nil, err
	}
	config.Certificates = certificates
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}}, nil
}

// post sends what is no CSR.
func (m *Mesh) post(ctx context.Context, ask *http.Client, path, mac, code string) (status int, body string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+m.address(m.Ports.EST)+path, strings.NewReader("doctor"))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/pkcs10")
	if mac != "" {
		request.SetBasicAuth(mac, code)
	}
	response, err := ask.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	return response.StatusCode, strings.TrimSpace(string(text)), err
}

// estGuessing guesses for a MAC that nobody has, which is not told apart from another.
func estGuessing(ctx context.Context, m *Mesh) Finding {
	if m.Ports.EST == 0 {
		return notChecked("this mesh runs no EST that is reached from here")
	}
	ask, err := m.estClient()
	if err != nil {
		return failed("%v", err)
	}
	random := make([]byte, 5)
	_, _ = rand.Read(random)
	mac := fmt.Sprintf("02%x", random) // locally administered
	for n := range mostGuesses {
		status, _, err := m.post(ctx, ask, estEnrol, mac, marker())
		switch {
		case err != nil:
			return failed("cannot be tried: %v", err)
		case status == http.StatusTooManyRequests && n > 0:
			return ok("the first %d were refused as wrong, the next was not looked at", n)
		case status != http.StatusUnauthorized:
			return failed("a wrong claiming code was answered %d", status)
		}
	}
	return failed("%d wrong claiming codes were looked at", mostGuesses)
}

func estRenewal(ctx context.Context, m *Mesh) Finding {
	if m.Ports.EST == 0 {
		return notChecked("this mesh runs no EST that is reached from here")
	}
	devices, err := m.devices(1)
	if err != nil {
		return notChecked("%v", err)
	}
	certificate := devices[0].certificate
	if identity.Due(certificate.Leaf, m.Now()) {
		return notChecked("the certificate of %s is due for renewal, and so may be renewed", devices[0].mac)
	}
	ask, err := m.estClient(certificate)
	if err != nil {
		return failed("%v", err)
	}
	if err := m.answers(ctx, ask, m.Ports.EST, estCertificates); err != nil {
		return failed("cannot be tried: %v", err)
	}
	switch status, body, err := m.post(ctx, ask, estReenrol, "", ""); {
	case err != nil:
		return failed("cannot be tried: %v", err)
	case status == http.StatusTooManyRequests:
		return notChecked("%s was refused too often just now: try again in a minute", devices[0].mac)
	case status == http.StatusForbidden && strings.Contains(body, "not due"):
		return ok("refused: %s", body)
	case status == http.StatusForbidden:
		return failed("the certificate of %s was refused for another reason: %s", devices[0].mac, body)
	default:
		return failed("a certificate that is not due is accepted for renewal (answered %d)", status)
	}
}
