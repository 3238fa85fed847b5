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
	"crypto/x509"
	"errors"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Errors that callers tell apart. They come wrapped.
var (
	// ErrUnknown means that the registry has no such device.
	ErrUnknown = errors.New("not registered")
	// ErrRevoked means that the device was revoked, and comes back only by force.
	ErrRevoked = errors.New("revoked")
	// ErrConflict means that the device is registered with other particulars.
	ErrConflict = errors.New("registered with another serial number")
	// ErrOtherKey means that the device is registered, and that its certificate is not
	// known to be for the key of the certificate request.
	ErrOtherKey = errors.New("registered with another key")
	// ErrTooMany means that the device has as many valid certificates as it may.
	ErrTooMany = errors.New("too many valid certificates")
	// ErrRefused means that the request itself is at fault: trying again helps nobody.
	ErrRefused = errors.New("request refused")
)

// DeviceStatus is where a device is in its life.
type DeviceStatus string

// The states of a device.
const (
	Active  DeviceStatus = "active"
	Revoked DeviceStatus = "revoked"
)

// Device is a row of the registry.
type Device struct {
	MAC          topic.MAC    `json:"mac"`
	SerialNumber string       `json:"serial_number"`
	Status       DeviceStatus `json:"status"`
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
	// LastSeen is when a reading last came in; the registry does not know it.
	LastSeen *time.Time `json:"last_seen,omitempty"`
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

// RequestResult is what became of one Request.
type RequestResult struct {
	Device Device
	// Issued is false when nothing changed.
	Issued bool
	// Certificate is the device's certificate and Issuer the one that signed it.
	Certificate, Issuer *x509.Certificate
	Err                 error
}
