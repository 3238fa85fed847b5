package est

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// enrol is RFC 7030 section 4.2.1, for a device that has no certificate yet.
func (s *Server) enrol(w http.ResponseWriter, r *http.Request) *refusal {
	user, code, ok := r.BasicAuth()
	if !ok {
		f := unauthorised("", "no_credentials")
		f.silent = true // a client's first step
		return f
	}
	body, f := readBody(r)
	if f != nil {
		return f
	}
	mac, _ := topic.ParseMAC(user) // what is no MAC is the MAC of no device
	serialNumber, f := s.authenticate(r.Context(), mac, code)
	if f != nil {
		return f
	}
	result, f := s.issue(r.Context(), mac, serialNumber, body, web.HostOf(r.RemoteAddr))
	s.settle(r.Context(), mac, code, f == nil)
	if f != nil {
		return f
	}
	s.metrics.issued.WithLabelValues("enrol").Inc()
	return s.answer(w, mac, result.Certificate)
}

// authenticate takes the claiming code, if it is right and unused. It does the same
// work for an unknown device and for a wrong code. The attempt is charged before the
// code is looked at, so that many at once are no more than one after the other.
func (s *Server) authenticate(ctx context.Context, mac topic.MAC, code string) (serialNumber string, f *refusal) {
	expected, serialNumber, err := s.cfg.Codes.Lookup(ctx, mac)
	if err != nil {
		return "", unavailable(mac, err)
	}
	known := expected != "" && mac != ""
	free, err := s.cfg.Claims.Guess(ctx, mac, known)
	if err != nil {
		return "", unavailable(mac, err)
	}
	if !free {
		return "", tooMany(mac)
	}
	want, got := sha256.Sum256([]byte(expected)), sha256.Sum256([]byte(code))
	right := subtle.ConstantTimeCompare(want[:], got[:]) == 1
	switch {
	case !known:
		return "", unauthorised(mac, "unknown_device")
	case !right:
		return "", unauthorised(mac, "wrong_code")
	case strings.TrimSpace(serialNumber) == "":
		s.right(ctx, mac)
		return "", forbidden(mac, "no_serial_number", "refused: no serial number in the metadata")
	}
	if free, err = s.cfg.Claims.Take(ctx, mac, code); err == nil && !free {
		return "", unauthorised(mac, "used_code")
	}
	s.right(ctx, mac)
	if err != nil {
		return "", unavailable(mac, err)
	}
	return serialNumber, nil
}

// right takes back what an attempt with the right code was charged.
func (s *Server) right(ctx context.Context, mac topic.MAC) {
	if err := s.cfg.Claims.Right(ctx, mac); err != nil {
		s.cfg.Log.Error("taking back the charge for a claiming code", "mac", mac, "error", err)
	}
}

func (s *Server) issue(ctx context.Context, mac topic.MAC, serialNumber string, body []byte, address string) (*registrar.RequestResult, *refusal) {
	csr, err := parseCSR(body)
	if err != nil {
		return nil, malformed(mac, err.Error())
	}
	if !namesDevice(csr.Subject, mac) {
		return nil, malformed(mac, "the CSR is for another device: its common name must be the MAC, or absent")
	}
	origin := registrar.Origin{Actor: mac.Dashed(), Address: address}
	results, err := s.cfg.Authority.Register(ctx, origin, registrar.Request{MAC: mac, SerialNumber: serialNumber, CSR: csr})
	if err != nil {
		return nil, unavailable(mac, err)
	}
	result := &results[0]
	if f := outcome(mac, result.Err); f != nil {
		return nil, f
	}
	if !result.Issued {
		return nil, forbidden(mac, "registered", textRegistered)
	}
	return result, nil
}

// outcome is what an error of the registrar means to the client.
func outcome(mac topic.MAC, err error) *refusal {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, registrar.ErrRevoked):
		return forbidden(mac, "revoked", textCertificate)
	case errors.Is(err, registrar.ErrUnknown):
		return forbidden(mac, "unknown_device", textCertificate)
	case errors.Is(err, registrar.ErrConflict):
		return forbidden(mac, "conflict", "the device is registered with another serial number: an operator has to look")
	case errors.Is(err, registrar.ErrOtherKey):
		return forbidden(mac, "registered", textRegistered)
	case errors.Is(err, registrar.ErrTooMany):
		return forbidden(mac, "too_many_certificates", "the device has too many valid certificates: an operator has to look")
	case errors.Is(err, registrar.ErrRefused):
		return malformed(mac, err.Error())
	}
	return unavailable(mac, err)
}

// settle tells what became of the code. If that fails the code stays reserved for
// a while, and the registry refuses a device that it has.
func (s *Server) settle(ctx context.Context, mac topic.MAC, code string, used bool) {
	if err := s.cfg.Claims.Settle(ctx, mac, code, used); err != nil {
		s.cfg.Log.Error("settling a claiming code", "mac", mac, "error", err)
	}
}
