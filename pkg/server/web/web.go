// Package web serves HTTP to strangers: every server of the mesh that somebody may
// reach without a password gives a client the same small share of memory, time and
// connections. It speaks HTTP/1.1 alone, and knows nothing of who may ask for what.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// MaxConnections is how many connections a server has at once; more wait in the
	// kernel.
	MaxConnections = 256
	// MaxOfSource is how many of them one source has; more are closed. A connection
	// that asks nothing costs its owner nothing, and must not keep the others out.
	MaxOfSource = 64
	// MaxBody is what a request may carry: several times a CSR with an RSA key of 8,192
	// bits.
	MaxBody = 16 << 10

	maxHeader     = 8 << 10          // net/http adds 4 KiB
	headerTimeout = 5 * time.Second  // of the TLS handshake, too
	readTimeout   = 15 * time.Second // for a request with its body
	writeTimeout  = 75 * time.Second // for the work and the answer
	idleTimeout   = 30 * time.Second // between two requests
	stopTimeout   = 10 * time.Second // for requests under way when the server stops
)

// Serve serves handler on the listener until ctx ends, and then lets requests that are
// being answered finish; theirs ends with ctx, too. config is for TLS, nil for none.
func Serve(ctx context.Context, listener net.Listener, config *tls.Config, handler http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler: bounded(handler), TLSConfig: config, Protocols: new(http.Protocols),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		BaseContext:    func(net.Listener) context.Context { return ctx },
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes that fail
	}
	server.Protocols.SetHTTP1(true)
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	})
	limited := LimitListener(listener, MaxConnections)
	var err error
	if config != nil {
		err = server.ServeTLS(limited, "", "")
	} else {
		err = server.Serve(limited)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serving HTTP: %w", err)
	}
	<-stopped
	return nil
}

func bounded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		next.ServeHTTP(w, r)
	})
}
