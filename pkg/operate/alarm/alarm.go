// Package alarm publishes conditions that somebody should look at, as small JSON messages on
// NATS subjects. A message says that an alarm was raised or cleared. No stream stores it. The
// service's Board has the alarms that are raised now, and lists them on request.
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
	Service string `json:"service"` // that raised it
	Subject string `json:"subject"` // what it is about: a secret's name, a MAC address
	// Since is when it was raised; zero if that is unknown.
	Since  time.Time `json:"since,omitzero"`
	Raised bool      `json:"raised"` // false: it is cleared
	Detail string    `json:"detail,omitempty"`
}

// Subject is where a service's alarms of a kind are published.
func Subject(service, kind string) string { return "f2.alarm." + service + "." + kind }

// Publish sends the alarm. It fails while the connection is down: publish the alarm again then.
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
