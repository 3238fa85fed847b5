package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type deviceRegisterCommand struct {
	registryFlags
	MAC          string `arg:"" optional:"" help:"MAC address, in any notation."`
	SerialNumber string `help:"Serial number on the controller's label." placeholder:"SN"`
	CSR          string `help:"File with a certificate request (PEM). The key stays on the controller." name:"csr" type:"existingfile"`
	From         string `help:"CSV file with one controller per line: MAC address, serial number." type:"existingfile" placeholder:"FILE"`
	Force        bool   `help:"Issue a new certificate for a registered or revoked controller, and revoke its other certificates."`
	DryRun       bool   `help:"Show what would be done without doing it."`
}

func (c *deviceRegisterCommand) check() error {
	switch {
	case (c.From != "") == (c.MAC != ""):
		return errors.New("name one controller, or --from a list of many")
	case c.From != "" && (c.SerialNumber != "" || c.CSR != ""):
		return errors.New("--serial-number and --csr are for one controller: a list has a serial number in each line, and keys of its controllers are made here")
	case c.From != "" && c.Force:
		return errors.New("--force revokes certificates, and a list that is broken off and begun again would revoke the new ones, too: " +
			"leave it out to register what is missing, and name each controller that is to be replaced: device register MAC --serial-number SN --force")
	case c.MAC != "" && c.SerialNumber == "":
		return errors.New("--serial-number is missing: it stands on the controller's label")
	}
	return nil
}

// Run registers one controller, or a list.
func (c *deviceRegisterCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.From != "" {
		return c.with(ctx, g, log, func(r *registrar.Core) error { return r.ImportList(ctx, registrar.Person(), c.From, c.DryRun) })
	}
	macs, err := parseMACs([]string{c.MAC})
	if err != nil {
		return err
	}
	csr, err := readRequest(c.CSR)
	if err != nil {
		return err
	}
	request := registrar.Request{MAC: macs[0], SerialNumber: c.SerialNumber, CSR: csr, Force: c.Force}
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		if c.DryRun {
			return r.PreviewOne(ctx, &request)
		}
		return r.RegisterOne(ctx, registrar.Person(), &request)
	})
}

func readRequest(file string) (*x509.CertificateRequest, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate request: %w", err)
	}
	csr, err := identity.ParseRequest(text)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return csr, nil
}
