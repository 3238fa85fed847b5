package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

type secretCommands struct {
	Status secretStatusCommand `cmd:"" help:"Show the source of each service's secrets. Exit status 1 if a secret fell back to a lower-priority source."`
	Rotate secretRotateCommand `cmd:"" help:"Replace credentials while they are in use."`
}

type secretStatusCommand struct {
	mesh.VaultFlags
	JSON bool `help:"Print JSON."`
}

// errDowngraded makes the exit status say what the screen says.
var errDowngraded = errors.New("a secret fell back to a lower-priority source")

// Run prints one screen.
func (c *secretStatusCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	keeper, err := mesh.OpenSecrets(&c.VaultFlags, m.State, log)
	if err != nil {
		return err
	}
	defer keeper.Close()
	all, err := mesh.Services{Conn: m.JetStream.Conn()}.AllSecrets(ctx)
	if err != nil {
		return err
	}
	all = append(all, mesh.UnservedSecrets(ctx, keeper)...)
	now := time.Now()
	for i := range all {
		all[i].Age = mesh.SecretAge(now, all[i].Status)
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(all)
	} else {
		err = mesh.WriteSecrets(os.Stdout, all)
	}
	if slices.ContainsFunc(all, func(s mesh.SecretStatus) bool { return s.Downgraded }) {
		err = errors.Join(err, errDowngraded)
	}
	return err
}
