package est

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/smallstep/pkcs7"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// readBody takes the whole body before anything is decided, so that a slow client
// holds nothing but its connection.
func readBody(r *http.Request) ([]byte, *refusal) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/pkcs10" {
		return nil, &refusal{status: http.StatusUnsupportedMediaType, text: "the body must be application/pkcs10", reason: "bad_request"}
	}
	body, err := io.ReadAll(r.Body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, text: "the CSR is too large", reason: "too_large"}
	}
	if err != nil {
		return nil, malformed("", "the body cannot be read")
	}
	return body, nil
}

var (
	errBase64 = errors.New("the body must be a CSR in base64, without PEM's first and last line")
	errCSR    = errors.New("the CSR is not PKCS #10 (RFC 2986)")
	errKey    = errors.New("the CSR is refused: its key must be ECDSA P-256 or P-384, or RSA of 2,048 to 8,192 bits, and its signature right")
)

// parseCSR reads a CSR in base64, with white space anywhere (RFC 8951 section 3.1),
// and checks that its sender has the key, and that the key is good enough. Errors
// tell nothing of the content.
func parseCSR(body []byte) (*x509.CertificateRequest, error) {
	compact := bytes.Join(bytes.Fields(body), nil)
	der := make([]byte, base64.StdEncoding.DecodedLen(len(compact)))
	n, err := base64.StdEncoding.Decode(der, compact)
	if err != nil || n == 0 {
		return nil, errBase64
	}
	csr, err := x509.ParseCertificateRequest(der[:n])
	if err != nil {
		return nil, errCSR
	}
	if identity.CheckRequest(csr) != nil {
		return nil, errKey
	}
	return csr, nil
}

// answer sends certificates as PKCS #7 "certs-only" in base64.
func (s *Server) answer(w http.ResponseWriter, mac topic.MAC, certificates ...*x509.Certificate) *refusal {
	var all []byte
	for _, c := range certificates {
		all = append(all, c.Raw...)
	}
	message, err := pkcs7.DegenerateCertificate(all)
	if err != nil {
		return unavailable(mac, err)
	}
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Transfer-Encoding", "base64")
	if _, err := io.WriteString(w, lines(base64.StdEncoding.EncodeToString(message))); err != nil {
		s.cfg.Log.Warn("certificate did not reach its device, which has to be registered anew", "mac", mac, "error", err)
	}
	return nil
}

// lines breaks base64 as tools expect it.
func lines(text string) string {
	const width = 64
	var b strings.Builder
	for len(text) > width {
		b.WriteString(text[:width] + "\n")
		text = text[width:]
	}
	b.WriteString(text + "\n")
	return b.String()
}
