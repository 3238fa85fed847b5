// Package registrar decides which controllers belong to the fleet (design 9).
//
// Each operation changes five things together: the registry's row, the bundle of
// certificate and key, the broker's access control list, its revocation list, and
// the live session. The registry's row is what counts: the operation has happened
// once that is committed, and everything else follows from it. What an operation
// that died half-way left is finished or cleared away by the next one. One
// advisory lock in the registry keeps the operations of all processes apart.
//
// A Registrar is safe for concurrent use.
package registrar

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

// Errors that callers tell apart. They come wrapped.
var (
	// ErrUnknown means that the registry has no such device.
	ErrUnknown = errors.New("not registered")
	// ErrRevoked means that the device was revoked, and comes back only by force.
	ErrRevoked = errors.New("revoked")
	// ErrConflict means that the device is registered with other particulars.
	ErrConflict = errors.New("registered with another serial number")
	// ErrRefused means that the request itself is at fault: trying again helps nobody.
	ErrRefused = errors.New("request refused")
)

// Status is where a device is in its life.
type Status string

// The states of a device.
const (
	Active  Status = "active"
	Revoked Status = "revoked"
)

// Device is a row of the registry.
type Device struct {
	MAC          topic.MAC `json:"mac"`
	SerialNumber string    `json:"serial_number"`
	Status       Status    `json:"status"`
	// Certificate is the serial number of the current certificate, in lower-case hex.
	Certificate string    `json:"certificate"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the certificate, lower-case hex
	Issuer      string    `json:"issuer"`      // key id of the issuing CA, lower-case hex
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	// OwnKey says that the key was made on the device: only a request of its own
	// can renew it.
	OwnKey       bool       `json:"own_key"`
	RegisteredAt time.Time  `json:"registered_at"`
	RenewedAt    *time.Time `json:"renewed_at,omitempty"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
	LastSeen     *time.Time `json:"last_seen,omitempty"`
}

// Origin says who asks for an operation, for the audit trail.
type Origin struct {
	// Actor is a person's or service's name, or the MAC of a device that asks for itself.
	Actor string
	// Address is where the request came from, "" for this machine.
	Address string
}

// Request asks for a certificate.
type Request struct {
	MAC topic.MAC
	// SerialNumber is the one on the device's label.
	SerialNumber string
	// CSR has the device's own public key, and nothing else in it counts. Without
	// one the registrar makes the key.
	CSR *x509.CertificateRequest
	// Force reissues for a device that is registered already, or was revoked.
	Force bool
}

// Result is what became of one Request.
type Result struct {
	Device Device
	// Issued is false when nothing changed.
	Issued bool
	// Certificate is the device's certificate and Issuer the one that signed it.
	Certificate, Issuer *x509.Certificate
	Err                 error
}

// Reason is why a certificate was revoked (RFC 5280 5.3.1).
type Reason int

// The reasons that are used here.
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
)

// Register gives each device a certificate and lets it in. The answers are in the
// order of the requests; one that is refused does not stop the others, and each
// happens whole or not at all. A device that is registered already stays as it is.
// The error is one that stopped the batch: none of its requests has happened then.
func (r *Registrar) Register(ctx context.Context, origin Origin, requests ...Request) ([]Result, error) {
	return nil, errors.ErrUnsupported
}

// Renew gives an active device another certificate. The old one stays valid until
// it expires: the device goes on with it until it has the new one. A nil csr is
// refused for a device that made its own key.
func (r *Registrar) Renew(ctx context.Context, origin Origin, mac topic.MAC, csr *x509.CertificateRequest) (Result, error) {
	return Result{}, errors.ErrUnsupported
}

// Revoke shuts devices out for good: the access control list, the revocation
// list, and the live session. It returns once all three are in force.
func (r *Registrar) Revoke(ctx context.Context, origin Origin, reason Reason, macs ...topic.MAC) ([]Device, error) {
	return nil, errors.ErrUnsupported
}

// RotateIssuer makes a new issuing CA. Certificates of the old one stay valid.
func (r *Registrar) RotateIssuer(ctx context.Context, origin Origin) (*x509.Certificate, error) {
	return nil, errors.ErrUnsupported
}

// List answers all devices, in the order of their MACs.
func (r *Registrar) List(ctx context.Context) ([]Device, error) { return nil, errors.ErrUnsupported }

// Show answers one device, or ErrUnknown.
func (r *Registrar) Show(ctx context.Context, mac topic.MAC) (Device, error) {
	return Device{}, errors.ErrUnsupported
}

// Refresh issues the revocation list anew if a third of its life is over, and
// finishes what an operation that died has left. It answers when the list in force
// ends.
func (r *Registrar) Refresh(ctx context.Context) (nextUpdate time.Time, err error) {
	return time.Time{}, errors.ErrUnsupported
}
