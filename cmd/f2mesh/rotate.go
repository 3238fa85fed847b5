package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type secretRotateCommand struct {
	mesh.VaultFlags
	Names       []string      `arg:"" optional:"" name:"name" help:"Names of secrets, such as timescale_password."`
	All         bool          `help:"Rotate all credentials, one after the other."`
	DryRun      bool          `help:"Show the steps without running them."`
	Timeout     time.Duration `help:"Maximum time for the services to switch to the new credential." default:"1m"`
	AllowAbsent bool          `help:"Continue even if a service that uses the secret is not running."`
	JSON        bool          `help:"Print reports as JSON, one per line."`
}

// Run rotates the credentials in turn, and stops at the first that fails.
func (c *secretRotateCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if c.All != (len(c.Names) == 0) {
		return errors.New("name the secrets to rotate, or --all")
	}
	r, err := mesh.NewRotator(ctx, g.state(), &c.VaultFlags, log)
	if err != nil {
		return err
	}
	defer r.Close()
	credentials := r.Running.Credentials()
	if !c.All {
		if credentials, err = credential.Choose(credentials, c.Names); err != nil {
			return err
		}
	}
	r.Record = func(ctx context.Context, result rotation.Rotated, failure error) error {
		return registrar.RecordRotation(ctx, r.Nc, result, failure, log)
	}
	for _, one := range credentials {
		if err := c.rotate(ctx, r, one); err != nil {
			return err
		}
	}
	return nil
}

func (c *secretRotateCommand) rotate(ctx context.Context, r *mesh.Rotator, one credential.Credential) error {
	cfg := r.Config(ctx, one)
	cfg.Timeout, cfg.AllowAbsent = c.Timeout, c.AllowAbsent
	if c.DryRun {
		steps, err := rotation.Plan(ctx, cfg)
		if err != nil {
			return err
		}
		fmt.Printf("%s would\n  %s\n", one.Name, strings.Join(steps, "\n  "))
		return nil
	}
	report, err := r.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	fmt.Print(report)
	if r.Running.Containers && one.Name == mesh.SecretReader {
		fmt.Println("  Grafana reads its login at its start: docker compose restart grafana")
	}
	return nil
}
