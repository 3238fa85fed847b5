package server

import (
	"context"
	"crypto/x509"
	"log/slog"
	"sync"
	"time"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// trustAge is how long the CAs are taken to be what they were: an issuer may be a
// server somewhere, and whoever asks EST must not make it busy.
const trustAge = 10 * time.Second

// trust holds the CAs that devices' certificates may come from.
type trust struct {
	issuer identity.Issuer
	log    *slog.Logger

	mu    sync.Mutex // guards the fields below; one asks, the others wait
	all   []*x509.Certificate
	asked time.Time
}

// get answers the CAs, the last known ones while the issuer does not answer.
func (t *trust) get(ctx context.Context) ([]*x509.Certificate, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.asked) < trustAge && t.all != nil {
		return t.all, nil
	}
	bounded, cancel := context.WithTimeout(ctx, trustAge)
	defer cancel()
	now, err := t.issuer.Authorities(bounded)
	switch {
	case err == nil:
		t.all = now.All()
	case t.all == nil:
		return nil, err
	default:
		t.log.Warn("issuer does not tell its CAs, the last known ones hold", "error", err)
	}
	t.asked = time.Now()
	return t.all, nil
}
