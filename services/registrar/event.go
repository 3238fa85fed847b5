package registrar

import (
	"context"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
)

// Action is what an Event tells of.
type Action string

// The actions of the audit trail.
const (
	Issue        Action = "issue"
	RenewAction  Action = "renew"
	RevokeAction Action = "revoke"
	RotateAction Action = "rotate_issuer"
	Refuse       Action = "refuse"
)

// Event is one entry of the audit trail. It holds no secrets.
type Event struct {
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Action Action    `json:"action"`
	MAC    topic.MAC `json:"mac,omitempty"`
	// Serial is that of the certificate, in lower-case hex.
	Serial  string `json:"serial,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Address string `json:"address,omitempty"` // where the request came from
}

// AuditTrail keeps the audit trail of what a Registrar does not see; its own
// operations are recorded with themselves.
type AuditTrail interface {
	Record(ctx context.Context, events ...Event) error
}
