package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

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
		return c.with(ctx, g, log, func(r *registry) error { return r.importList(ctx, c.From, c.DryRun) })
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
	return c.with(ctx, g, log, func(r *registry) error {
		if c.DryRun {
			return r.foretell(ctx, &request)
		}
		return r.registerOne(ctx, &request)
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

func (r *registry) registerOne(ctx context.Context, q *registrar.Request) error {
	results, err := r.Register(ctx, person(), *q)
	if err != nil {
		return err
	}
	d := &results[0].Device
	switch {
	case results[0].Err != nil:
		return notRegistered(q, &results[0])
	case !results[0].Issued:
		fmt.Printf("%s is registered already, certificate %s, valid until %s: nothing changed\n", d.MAC.Dashed(), d.Certificate, until(d))
	default:
		fmt.Printf("%s is registered: certificate %s, valid until %s, in %s\n", d.MAC.Dashed(), d.Certificate, until(d), r.Bundle(d.MAC))
	}
	return nil
}

// foretell says what registerOne would do.
func (r *registry) foretell(ctx context.Context, q *registrar.Request) error {
	results, err := r.Foresee(ctx, *q)
	if err != nil {
		return err
	}
	d, err := r.Show(ctx, q.MAC)
	unknown := errors.Is(err, registrar.ErrUnknown)
	switch {
	case err != nil && !unknown:
		return err
	case results[0].Err != nil:
		return notRegistered(q, &results[0])
	case unknown:
		fmt.Printf("%s would be registered\n", q.MAC.Dashed())
	case results[0].Issued:
		fmt.Printf("%s would get a new certificate; certificate %s would be revoked and its session ended\n", q.MAC.Dashed(), d.Certificate)
	default:
		fmt.Printf("%s is registered already (%s): nothing would change\n", q.MAC.Dashed(), d.Status)
	}
	return nil
}

// notRegistered says why, and what can be done.
func notRegistered(q *registrar.Request, result *registrar.Result) error {
	switch err := result.Err; {
	case errors.Is(err, registrar.ErrRevoked):
		return fmt.Errorf("%s was revoked: --force registers it again", q.MAC.Dashed())
	case errors.Is(err, registrar.ErrConflict):
		return fmt.Errorf("%s is registered with serial number %s: --force replaces it and revokes its certificate", q.MAC.Dashed(), result.Device.SerialNumber)
	case errors.Is(err, registrar.ErrOtherKey):
		return fmt.Errorf("%[1]s is registered already, with another key than that of --csr: `f2mesh device renew %[1]s --csr FILE` gives it a certificate for this key and leaves the old one valid; `--force` replaces and revokes it",
			q.MAC.Dashed())
	default:
		return fmt.Errorf("registering %s: %w", q.MAC.Dashed(), err)
	}
}

// importList registers a list, or in a dry run says what that would do. What it
// registers stays registered if it is interrupted, and a second time it goes on from
// there.
func (r *registry) importList(ctx context.Context, file string, dryRun bool) error {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("reading the list of controllers: %w", err)
	}
	advance, end := countLines(bytes.Count(text, []byte("\n")))
	var issued, there, refused int
	report := func(l registrar.Line) {
		advance(l.Number)
		switch {
		case l.Result.Err != nil:
			refused++
			fmt.Fprintf(os.Stderr, "%s:%d: %v\n", file, l.Number, l.Result.Err)
		case l.Result.Issued:
			issued++
		default:
			there++
		}
	}
	outcome := "%d registered, %d were registered already, %d lines refused\n"
	if dryRun {
		outcome = "%d would be registered, %d are registered already, %d lines would be refused; nothing was done\n"
		err = r.Preview(ctx, bytes.NewReader(text), report)
	} else {
		err = r.Import(ctx, person(), bytes.NewReader(text), report)
	}
	end()
	fmt.Printf(outcome, issued, there, refused)
	switch {
	case ctx.Err() != nil && !dryRun:
		return errors.New("interrupted: the same command goes on where it stopped")
	case err != nil:
		return err
	case refused > 0:
		return fmt.Errorf("%d lines of %s, each named above with its reason", refused, file)
	}
	return nil
}

// countLines shows on a terminal how far a list is done.
func countLines(total int) (advance func(line int), end func()) {
	out := io.Discard
	if term.IsTerminal(int(os.Stderr.Fd())) {
		out = os.Stderr
	}
	bar := progressbar.NewOptions(total, progressbar.OptionSetWriter(out), progressbar.OptionSetDescription("registering"),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish())
	return func(line int) { _ = bar.Set(min(line, total)) }, func() { _ = bar.Finish() }
}
