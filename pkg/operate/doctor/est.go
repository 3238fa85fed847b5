package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// estCertificates is a path that needs no password (RFC 7030).
const estCertificates = "/.well-known/est/cacerts"

// mostGuesses is how many wrong claiming codes the doctor tries for one MAC.
const mostGuesses = 12

func (t *Target) est(certificates ...tls.Certificate) web {
	need(t.Ports.EST != 0, "this mesh runs no EST server that can be reached from here")
	return t.web(t.Ports.EST, certificates...)
}

func estLimits(ctx context.Context, t *Target) Finding { return t.est().limits(ctx, estCertificates) }

// post sends a body that is no CSR.
func (w web) post(ctx context.Context, path string, header http.Header) (status int, text string) {
	header.Set("Content-Type", "application/pkcs10")
	status, text, err := w.request(ctx, http.MethodPost, path, header, "doctor")
	ensure(err)
	return status, text
}

// estGuessing guesses for a MAC that no controller has. EST treats it like any other.
func estGuessing(ctx context.Context, t *Target) Finding {
	est := t.est()
	mac := fmt.Sprintf("02%x", rand.Text()[:5]) // locally administered
	for n := range mostGuesses {
		status, _ := est.post(ctx, "/.well-known/est/simpleenroll", basic(mac, marker()))
		switch {
		case status == http.StatusTooManyRequests && n > 0:
			return ok("the first %d codes were refused as wrong, the next was not compared", n)
		case status != http.StatusUnauthorized:
			return failed("a wrong claiming code returned status %d", status)
		}
	}
	return failed("%d wrong claiming codes were compared", mostGuesses)
}

func estRenewal(ctx context.Context, t *Target) Finding {
	d := t.needDevices(1)[0]
	need(!identity.Due(d.certificate.Leaf, t.Now()), "the certificate of %s is due, and may be renewed", d.mac)
	est := t.est(d.certificate)
	must(est.get(ctx, estCertificates))
	status, text := est.post(ctx, "/.well-known/est/simplereenroll", http.Header{})
	need(status != http.StatusTooManyRequests, "%s was refused too often in the last minute: try again in a minute", d.mac)
	switch {
	case status == http.StatusForbidden && strings.Contains(text, "not due"):
		return ok("refused: %s", text)
	case status == http.StatusForbidden:
		return failed("the certificate of %s was refused for another reason: %s", d.mac, text)
	}
	return failed("a certificate that is not due is accepted for renewal (status %d)", status)
}
