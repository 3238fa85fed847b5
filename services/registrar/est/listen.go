package est

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// maxConnections at once; more wait in the kernel.
	maxConnections = 256
	// maxOfSource of them are for one source; more are closed. A connection that asks
	// nothing costs its owner nothing, and must not keep the others out.
	maxOfSource = 64
)

// Serve serves over TLS on the listener until ctx ends, and then lets requests
// that are being answered finish. The certificate is read again when its file
// changes.
func (s *Server) Serve(ctx context.Context, listener net.Listener, certFile, keyFile string) error {
	pair := &pair{certFile: certFile, keyFile: keyFile}
	if _, err := pair.get(nil); err != nil {
		return err
	}
	server := &http.Server{
		Handler: s.Handler(),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, GetCertificate: pair.get,
			// Any certificate may be shown, a first enrolment needs none; the one
			// operation that counts on it verifies it.
			ClientAuth: tls.RequestClientCert,
		},
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: operationTimeout + 15*time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 8 << 10,
		ErrorLog:       slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // handshakes that fail
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	})
	err := server.ServeTLS(netutil.LimitListener(newFair(listener), maxConnections), "", "")
	if !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serving EST: %w", err)
	}
	<-stopped
	return nil
}

// pair is a certificate and key in files.
type pair struct {
	certFile, keyFile string

	mu     sync.Mutex // guards the fields below
	loaded *tls.Certificate
	of     time.Time // when the file was changed
}

// get answers the pair as it is on disk now, or the last that could be read: half of
// a change is no reason to stop serving.
func (p *pair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, err := os.Stat(p.certFile)
	if err == nil && p.loaded != nil && info.ModTime().Equal(p.of) {
		return p.loaded, nil
	}
	var fresh tls.Certificate
	if err == nil {
		fresh, err = tls.LoadX509KeyPair(p.certFile, p.keyFile)
	}
	switch {
	case err == nil:
		p.loaded, p.of = &fresh, info.ModTime()
	case p.loaded == nil:
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	return p.loaded, nil
}
