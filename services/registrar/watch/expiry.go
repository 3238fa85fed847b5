package watch

import (
	"context"
	"fmt"
	"time"
)

// authorityWarning is how long before its end a CA is worth an alarm: from then on
// it cuts short every certificate that it signs for a year.
const authorityWarning = 365 * 24 * time.Hour

// checkCertificates raises an alarm for each certificate that is about to end, the
// devices' and the mesh's own.
func (w *Watcher) checkCertificates(ctx context.Context, now time.Time) error {
	details := map[string]string{}
	devices, err := w.fleet.Expiring(ctx, now.Add(w.cfg.ExpiryWarning))
	if err != nil {
		return err
	}
	for _, d := range devices {
		details[string(d.MAC)] = ends(d.NotAfter)
	}
	own, err := w.own()
	if err != nil {
		return err
	}
	for _, c := range own {
		warning := w.cfg.ExpiryWarning
		if c.IsCA {
			warning = max(warning, authorityWarning)
		}
		if now.Add(warning).After(c.NotAfter) {
			details[fmt.Sprintf("%s, serial number %x", c.Subject.CommonName, c.SerialNumber)] = ends(c.NotAfter)
		}
	}
	w.alarms.Keep(Expiry, details)
	w.metrics.expiring.Set(float64(len(details)))
	return nil
}

func ends(at time.Time) string { return "the certificate ends at " + at.UTC().Format(time.RFC3339) }

// checkRevocationList raises an alarm when the list was not renewed in time.
func (w *Watcher) checkRevocationList(now time.Time) {
	w.mu.Lock()
	end := w.crl
	w.mu.Unlock()
	switch {
	case end.IsZero():
	case now.Add(w.cfg.CRLWarning).After(end):
		w.alarms.Raise(CRL, "crl", "the revocation list ends at "+end.UTC().Format(time.RFC3339)+" and locks out all devices then: see why it is not renewed")
	default:
		w.alarms.Clear(CRL, "crl")
	}
}
