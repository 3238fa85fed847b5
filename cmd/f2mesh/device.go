package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type deviceCommands struct {
	Register deviceRegisterCommand `cmd:"" help:"Issue certificates for controllers and admit them."`
	List     deviceListCommand     `cmd:"" help:"List the registered controllers."`
	Show     deviceShowCommand     `cmd:"" help:"Show one controller."`
	Renew    deviceRenewCommand    `cmd:"" help:"Issue new certificates for registered controllers. Old ones stay valid until they expire."`
	Revoke   deviceRevokeCommand   `cmd:"" help:"Revoke controllers, immediately and permanently."`
	RotateCA deviceRotateCommand   `cmd:"" help:"Create a new issuing CA. Certificates of the old one stay valid." name:"rotate-ca"`
	Export   deviceExportCommand   `cmd:"" help:"Export a controller's certificate bundle: device.crt, device.key, ca.crt, mqtt_config.json."`
	Log      deviceLogCommand      `cmd:"" help:"Show the audit trail: what was issued, renewed, revoked, rotated or refused, and by whom."`
}

type deviceRenewCommand struct {
	registryFlags
	MAC []string `arg:"" optional:"" help:"MAC addresses, in any notation."`
	Due bool     `help:"Renew all certificates past two thirds of their lifetime whose key was created here."`
	CSR string   `help:"File with a certificate request (PEM) signed by the controller's own key." name:"csr" type:"existingfile"`
}

// Run renews, one after the other.
func (c *deviceRenewCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	macs, err := parseMACs(c.MAC)
	switch {
	case err != nil:
		return err
	case c.Due != (len(macs) == 0), c.CSR != "" && len(macs) != 1:
		return fmt.Errorf("name the controllers to renew, or --due; --csr is for one")
	}
	csr, err := readRequest(c.CSR)
	if err != nil {
		return err
	}
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		if c.Due {
			if macs, err = r.Due(ctx); err != nil {
				return err
			}
		}
		for _, mac := range macs {
			result, err := r.Renew(ctx, registrar.Person(), mac, csr, nil)
			if err != nil {
				return err
			}
			fmt.Printf("%s renewed: certificate %s, valid until %s, in %s\n",
				mac.Dashed(), result.Device.Certificate, registrar.Until(&result.Device), r.Bundle(mac))
		}
		return nil
	})
}

type deviceRevokeCommand struct {
	registryFlags
	MAC    []string         `arg:"" help:"MAC addresses, in any notation."`
	Reason registrar.Reason `help:"Reason: unspecified, key-compromise, superseded or cessation-of-operation." default:"unspecified"`
	DryRun bool             `help:"Show what would be revoked without revoking it."`
}

// Run returns once the controllers are out.
func (c *deviceRevokeCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	macs, err := parseMACs(c.MAC)
	if err != nil {
		return err
	}
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		if c.DryRun {
			return r.PreviewRevocation(ctx, macs)
		}
		devices, err := r.Revoke(ctx, registrar.Person(), c.Reason, macs...)
		for i := range devices {
			fmt.Printf("%s is revoked since %s\n", devices[i].MAC.Dashed(), devices[i].RevokedAt.Local().Format("2006-01-02 15:04:05"))
		}
		return err
	})
}

type deviceRotateCommand struct {
	registryFlags
	RootKey string `help:"File with the root CA's key, which should be kept offline. Default: root-key/root.key in the state directory." type:"existingfile"`
	DryRun  bool   `help:"Show what would be done without doing it."`
}

// Run makes a new issuing CA.
func (c *deviceRotateCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	return c.with(ctx, g, log, func(r *registrar.Core) error {
		all, err := r.Issuer.Authorities(ctx)
		if err != nil {
			return err
		}
		for _, old := range all.Issuing {
			fmt.Printf("%s (key %s) is trusted until the last certificate that it signed has run out or is replaced\n",
				old.Subject.CommonName, short(identity.KeyID(old)))
		}
		if c.DryRun {
			fmt.Println("a new issuing CA would sign from now on; nothing was done")
			return nil
		}
		issuer, err := r.RotateIssuer(ctx, registrar.Person(), cmp.Or(c.RootKey, g.state().RootKey()))
		if err != nil {
			return err
		}
		fmt.Printf("%s (key %s) signs from now on, until %s\n",
			issuer.Subject.CommonName, short(identity.KeyID(issuer)), issuer.NotAfter.Format("2006-01-02"))
		return nil
	})
}

func short(id string) string { return id[:min(len(id), 12)] }
