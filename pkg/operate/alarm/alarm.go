// Package alarm publishes what somebody should look at, as small JSON messages on
// NATS subjects. A message tells that an alarm was raised, or that it was
// cleared; nothing keeps them. What is raised now is on the service's Board, which
// answers it to who asks.
package alarm

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// Alarm is one condition of one service.
type Alarm struct {
	Kind    string `json:"alarm"`   // such as secret_downgraded
	Service string `json:"service"` // that noticed it
	Subject string `json:"subject"` // what it is about: a secret's name, a MAC address
	// Since is when it was raised; zero where a listing does not know it.
	Since  time.Time `json:"since,omitzero"`
	Raised bool      `json:"raised"` // false: it is over
	Detail string    `json:"detail,omitempty"`
}

// Subject is where a service's alarms of a kind are published.
func Subject(service, kind string) string { return "f2.alarm." + service + "." + kind }

// Publish sends the alarm. It fails while the connection is down, and then the
// alarm should be published again.
func Publish(nc *nats.Conn, a Alarm) error {
	data, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("publishing alarm %s: %w", a.Kind, err)
	}
	if err := nc.Publish(Subject(a.Service, a.Kind), data); err != nil {
		return fmt.Errorf("publishing alarm %s: %w", a.Kind, err)
	}
	return nil
}
