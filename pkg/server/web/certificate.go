package web

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// Pair is a certificate and key in files, which is read again when the certificate's
// file changes. It is safe for concurrent use.
type Pair struct {
	CertFile, KeyFile string

	mu     sync.Mutex // guards the fields below
	loaded *tls.Certificate
	of     time.Time // when the file was changed
}

// Get answers the pair as it is on disk now, or the last that could be read: half of
// a change is no reason to stop serving.
func (p *Pair) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.CertFile)
	if err == nil && p.loaded != nil && info.ModTime().Equal(p.of) {
		return p.loaded, nil
	}
	var fresh tls.Certificate
	if err == nil {
		fresh, err = tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	}
	switch {
	case err == nil:
		p.loaded, p.of = &fresh, info.ModTime()
	case p.loaded == nil:
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	return p.loaded, nil
}
