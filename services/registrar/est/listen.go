package est

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"

	"github.com/f2mesh/f2mesh/pkg/server/web"
)

// Serve serves over TLS on the listener until ctx ends, and then lets requests
// that are being answered finish. The certificate is read again when its file
// changes.
func (s *Server) Serve(ctx context.Context, listener net.Listener, certFile, keyFile string) error {
	pair := &web.Pair{CertFile: certFile, KeyFile: keyFile}
	if _, err := pair.Get(nil); err != nil {
		return err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: pair.Get,
		// Any certificate may be shown, a first enrolment needs none; the one
		// operation that counts on it verifies it.
		ClientAuth: tls.RequestClientCert,
	}
	var trail sync.WaitGroup
	counting, stop := context.WithCancel(context.WithoutCancel(ctx))
	trail.Go(func() { s.trail.run(counting) })
	defer trail.Wait()
	defer stop() // once nobody is refused any more
	if err := web.Serve(ctx, listener, config, s.Handler(), s.cfg.Log); err != nil {
		return fmt.Errorf("EST: %w", err)
	}
	return nil
}
