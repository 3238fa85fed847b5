// Package est lets devices and factories fetch certificates by Enrollment over
// Secure Transport (RFC 7030): cacerts, csrattrs, simpleenroll and simplereenroll,
// with the clarifications of RFC 8951.
//
// A device enrols for the first time with its MAC and its claiming code by HTTP
// Basic authentication, and again with its current certificate. A code opens the
// door once. Wrong code, unknown device and used code look the same from outside, and
// each device has a few wrong ones, which the registry counts: a restart gives nobody
// more. A certificate is renewed once half its life is over, and no device has many
// that are valid.
// Of a CSR only the public key counts: what else it asks for is not in the
// certificate. Who is refused, and why, goes to the audit trail; codes, CSRs and
// certificates do not.
//
// Left out are server-side key generation, full CMC and labels in the path: the
// key of a device is its own.
package est

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/server/web"
	"github.com/f2mesh/f2mesh/services/registrar"
)

// Enroller issues certificates; *registrar.Registrar does.
type Enroller interface {
	Register(ctx context.Context, origin registrar.Origin, requests ...registrar.Request) ([]registrar.RequestResult, error)
	Renew(ctx context.Context, origin registrar.Origin, mac topic.MAC, csr *x509.CertificateRequest, shown *x509.Certificate) (registrar.RequestResult, error)
}

// Standing tells whether a certificate that is valid by itself still counts.
type Standing interface {
	// Check returns registrar.ErrUnknown or registrar.ErrRevoked if the device or
	// this certificate of it is not to be trusted any more.
	Check(ctx context.Context, mac topic.MAC, certificate *x509.Certificate) error
}

// Codes knows the devices' claiming codes.
type Codes interface {
	// Lookup answers "" for a device that is unknown or has no code.
	Lookup(ctx context.Context, mac topic.MAC) (code, serialNumber string, err error)
}

// Claims remembers which codes were used, and how often somebody guessed.
type Claims interface {
	// Guess charges the device with an attempt; ok is false if it has none left. known
	// says that there is a code to be guessed.
	Guess(ctx context.Context, mac topic.MAC, known bool) (ok bool, err error)
	// Right takes the charge back: the code was right.
	Right(ctx context.Context, mac topic.MAC) error
	// Take reserves the code; ok is false if it was used, or is being used now.
	Take(ctx context.Context, mac topic.MAC, code string) (ok bool, err error)
	// Settle ends the reservation: for good if used, else the code is free again.
	Settle(ctx context.Context, mac topic.MAC, code string, used bool) error
}

// Config says what a Server works with. All fields are required.
type Config struct {
	Authority Enroller
	Standing  Standing
	Codes     Codes
	Claims    Claims
	Recorder  registrar.AuditTrail
	// Trusted answers the CA certificates, root and issuers, that hold now.
	Trusted func() ([]*x509.Certificate, error)
	Limits  Limits
	Log     *slog.Logger
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	cfg      Config
	sources  *web.Buckets
	renewals *web.Buckets // of refused ones, by device
	trail    *trail
	metrics  *metrics
}

// Limits of the service.
type Limits struct {
	SourceRate  float64 `help:"Requests per second from one address (IPv6: one /64)." default:"10" name:"source-rate"`
	SourceBurst int     `help:"Burst of requests from one address." default:"50" name:"source-burst"`
	DeviceRate  float64 `help:"Refused requests per second for one device. Wrong claiming codes and renewals are counted separately." default:"0.1" name:"device-rate"`
	DeviceBurst int     `help:"Burst of refused requests for one device." default:"5" name:"device-burst"`
	RenewAfter  float64 `help:"Fraction of its lifetime after which a certificate may be renewed." default:"0.5" name:"renew-after"`
}

// Validate names the first setting that cannot work.
func (l *Limits) Validate() error {
	if l.SourceRate <= 0 || l.SourceBurst < 1 || l.DeviceRate <= 0 || l.DeviceBurst < 1 {
		return errors.New("rates must be positive, bursts at least 1")
	}
	if l.RenewAfter < 0 || l.RenewAfter >= 1 {
		return errors.New("renew-after must be at least 0 and below 1")
	}
	return nil
}

// operationTimeout bounds one enrolment. It goes on without the client: a device that
// is gone must not leave work half done.
const operationTimeout = time.Minute

// New returns a server; its metrics are in reg.
func New(cfg Config, reg prometheus.Registerer) (*Server, error) {
	if err := cfg.Limits.Validate(); err != nil {
		return nil, err
	}
	l := cfg.Limits
	return &Server{
		cfg: cfg, sources: web.NewBuckets(l.SourceRate, l.SourceBurst), renewals: web.NewBuckets(l.DeviceRate, l.DeviceBurst),
		trail: newTrail(cfg.Recorder, cfg.Log), metrics: newMetrics(reg),
	}, nil
}

// Handler serves /.well-known/est. The connection's client certificate, if any,
// must have been asked for and need not have been verified.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/est/cacerts", s.limited(s.cacerts))
	mux.HandleFunc("GET /.well-known/est/csrattrs", s.limited(s.csrattrs))
	mux.HandleFunc("POST /.well-known/est/simpleenroll", s.limited(s.enrol))
	mux.HandleFunc("POST /.well-known/est/simplereenroll", s.limited(s.reenrol))
	return mux
}

// operation answers a request, or says why it does not.
type operation func(w http.ResponseWriter, r *http.Request) *refusal

// limited bounds an operation in rate and time, and tells of what it refuses.
func (s *Server) limited(do operation) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.sources.Allow(web.Network(r.RemoteAddr)) {
			s.refuse(w, r, tooMany(""))
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), operationTimeout)
		defer cancel()
		if refusal := do(w, r.WithContext(ctx)); refusal != nil {
			s.refuse(w, r, refusal)
		}
	}
}

// cacerts is RFC 7030 section 4.1.
func (s *Server) cacerts(w http.ResponseWriter, _ *http.Request) *refusal {
	trusted, err := s.cfg.Trusted()
	if err != nil {
		return unavailable("", err)
	}
	return s.answer(w, "", trusted...)
}

// csrattrs is RFC 7030 section 4.5: there is nothing that a CSR must ask for.
func (s *Server) csrattrs(w http.ResponseWriter, _ *http.Request) *refusal {
	w.WriteHeader(http.StatusNoContent)
	return nil
}
