package est

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// reenrol is RFC 7030 section 4.2.2: another certificate for the one that the
// connection was opened with. Its handshake has proved that the client has the
// old key, the CSR's signature that it has the new one.
func (s *Server) reenrol(w http.ResponseWriter, r *http.Request) *refusal {
	body, f := readBody(r)
	if f != nil {
		return f
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return forbidden("", "no_certificate", "a client certificate is needed to re-enrol")
	}
	current := r.TLS.PeerCertificates[0]
	mac, f := s.identify(r.Context(), current)
	if f != nil {
		return f
	}
	if s.renewals.Spent(string(mac)) {
		return tooMany(mac)
	}
	result, f := s.renew(r, mac, current, body)
	if f != nil {
		s.renewals.Allow(string(mac))
		return f
	}
	s.metrics.issued.WithLabelValues("reenrol").Inc()
	return s.answer(w, mac, result.Certificate)
}

// renew is for a device that has shown its certificate.
func (s *Server) renew(r *http.Request, mac topic.MAC, current *x509.Certificate, body []byte) (registrar.RequestResult, *refusal) {
	var none registrar.RequestResult
	if from := renewable(current, s.cfg.Limits.RenewAfter); time.Now().Before(from) {
		return none, forbidden(mac, "not_due", "the certificate is not due: it can be renewed from "+from.UTC().Format(time.RFC3339)+" on")
	}
	csr, err := parseCSR(body)
	if err != nil {
		return none, malformed(mac, err.Error())
	}
	if !sameName(csr.Subject, current.Subject) {
		return none, malformed(mac, "the CSR's subject must be that of the certificate")
	}
	result, err := s.cfg.Authority.Renew(r.Context(), registrar.Origin{Actor: mac.Dashed(), Address: web.HostOf(r.RemoteAddr)}, mac, csr, current)
	if err == nil {
		err = result.Err
	}
	return result, outcome(mac, err)
}

// renewable is when so much of the certificate's life is over.
func renewable(c *x509.Certificate, share float64) time.Time {
	return c.NotBefore.Add(time.Duration(share * float64(c.NotAfter.Sub(c.NotBefore))))
}

// identify answers whose certificate it is: valid now, of our CA, for clients, and
// neither it nor its device revoked.
func (s *Server) identify(ctx context.Context, certificate *x509.Certificate) (topic.MAC, *refusal) {
	trusted, err := s.cfg.Trusted()
	if err != nil {
		return "", unavailable("", err)
	}
	if err := verify(certificate, trusted); err != nil {
		return "", forbidden("", reasonOf(err), textCertificate)
	}
	mac, err := topic.ParseMAC(certificate.Subject.CommonName)
	if err != nil {
		return "", forbidden("", "not_a_device", textCertificate)
	}
	if f := outcome(mac, s.cfg.Standing.Check(ctx, mac, certificate)); f != nil {
		return "", f
	}
	return mac, nil
}

// verify trusts the CAs that hold now and no others: what else a client sends along
// is not looked at.
func verify(certificate *x509.Certificate, trusted []*x509.Certificate) error {
	roots := x509.NewCertPool()
	for _, c := range trusted {
		roots.AddCert(c)
	}
	_, err := certificate.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

func reasonOf(err error) string {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "expired_certificate"
	}
	return "foreign_certificate"
}

// sameName compares names by what they say, not by their encoding, which differs
// from library to library.
func sameName(a, b pkix.Name) bool {
	return slices.Equal(attributes(a), attributes(b))
}

func attributes(n pkix.Name) []string {
	all := make([]string, 0, len(n.Names))
	for _, attribute := range n.Names {
		value, ok := attribute.Value.(string)
		if !ok {
			value = "\x00" // equals nothing that we issue
		}
		all = append(all, attribute.Type.String()+"="+strings.ToLower(value))
	}
	slices.Sort(all)
	return all
}

// namesDevice reports whether a first CSR is for the device: its common name is
// the MAC in any spelling, or it has none and leaves the name to us.
func namesDevice(n pkix.Name, mac topic.MAC) bool {
	if n.CommonName == "" {
		return true
	}
	named, err := topic.ParseMAC(n.CommonName)
	return err == nil && named == mac
}
