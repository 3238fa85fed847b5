package server

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/services/registrar"
	"github.com/f2mesh/f2mesh/services/registrar/est"
)

// fleet answers the watcher, which starts with the registrar's core.
type fleet struct{ *Server }

// Active answers which of the devices may connect.
func (f fleet) Active(ctx context.Context, macs []topic.MAC) ([]topic.MAC, error) {
	return f.core.Active(ctx, macs)
}

// Expiring lists the active devices whose certificate ends before a time.
func (f fleet) Expiring(ctx context.Context, before time.Time) ([]registrar.Device, error) {
	return f.core.Expiring(ctx, before)
}

// Guessed answers whose claiming codes somebody guesses.
func (f fleet) Guessed(ctx context.Context) (map[string]string, error) {
	return est.NewRegistry(f.registry.Load().Pool, f.cfg.Limits).Guessed(ctx)
}

// readCertificate reads the first certificate of a PEM file.
func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading the server's certificate: not PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the server's certificate: %w", err)
	}
	return certificate, nil
}
