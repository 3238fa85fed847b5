package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
)

type doctorCommand struct {
	JSON   bool     `help:"Print JSON."`
	Only   []string `help:"Checks to run, by name or by prefix (mqtt, nats, ...)."`
	List   bool     `help:"List the checks without running them."`
	Strict bool     `help:"Exit with status 1 on warnings and skipped checks, too."`
	Docker string   `help:"Socket of the Docker API." default:"/var/run/docker.sock" env:"F2MESH_DOCKER_SOCKET"`

	containers.HostDoctor
}

// Run runs the checks and prints the results. The exit status is 1 if one failed; with
// --strict, also on warnings and skipped checks.
func (c *doctorCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if c.List {
		_, err := doctor.Checks().WriteTo(os.Stdout)
		return err
	}
	m, done, err := c.find(g.state(), log)
	if err != nil {
		return err
	}
	defer done()
	m.Docker, m.Vulncheck = c.Docker, doctor.VulncheckCommand()
	results, err := doctor.Run(ctx, m, c.Only...)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(results)
	} else {
		_, err = results.WriteTo(os.Stdout)
	}
	if err != nil {
		return err
	}
	return results.Err(c.Strict)
}

// find returns the mesh to check, in containers or of `f2mesh up`.
func (c *doctorCommand) find(st mesh.State, log *slog.Logger) (m *doctor.Target, done func(), err error) {
	secrets, err := st.Secrets(log)
	if err != nil {
		return nil, nil, err
	}
	if c.Compose != "" {
		m, err = c.Target()
	} else {
		var r mesh.Description
		r, err = st.Load()
		m = mesh.DoctorTarget(st, r, secrets.LogIn)
	}
	if err != nil {
		secrets.Close()
		return nil, nil, err
	}
	m.Vault = secrets.Vault
	return m, secrets.Close, nil
}
