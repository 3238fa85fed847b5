package service

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

// watchDowngrades publishes the alarm of each secret when it is raised and when it
// is cleared, until ctx ends. The log tells it already: the store's. What cannot be published is tried again.
func (h *Host) watchDowngrades(ctx context.Context, service string, nc *nats.Conn) error {
	raised := map[string]time.Time{} // since when, by secret
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		for _, s := range h.Secrets.Status() {
			since, was := raised[s.Name]
			if was == s.Downgraded {
				continue
			}
			if !was {
				since = time.Now()
			}
			err := alarm.Publish(nc, alarm.Alarm{
				Kind: alarm.SecretDowngraded, Service: service, Subject: s.Name, Since: since, Raised: s.Downgraded, Detail: s.Problem,
			})
			switch {
			case err != nil:
			case s.Downgraded:
				raised[s.Name] = since
			default:
				delete(raised, s.Name)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}
