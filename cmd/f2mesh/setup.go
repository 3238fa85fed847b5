package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

type setupCommand struct {
	Dir    string `help:"Directory of the secret files. Default: the mesh's own." type:"path"`
	Force  bool   `help:"Replace existing secrets. The mesh must be stopped; use secret rotate for a running one."`
	DryRun bool   `help:"Show what would be done without doing it."`

	containers.Setup
	mesh.StreamSetup
}

// Run makes a file for each secret, and says what it made and what was there.
func (c *setupCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	switch {
	case c.Streams && (c.Compose != "" || c.Force):
		return errors.New("--compose and --force are not for --streams")
	case c.Streams:
		return c.StreamSetup.Run(ctx, g.state(), c.Dir, c.DryRun, log)
	case c.Compose != "" && (c.Force || c.Dir != ""):
		return errors.New("--force and --dir are not for --compose: move a secret's file away to have it made anew")
	case c.Compose != "":
		return c.Setup.Run(ctx, c.DryRun)
	}
	st := g.state()
	files := st.SecretFiles()
	if c.Dir != "" {
		files = credential.Folder{Dir: c.Dir}
	} else if c.Force && st.Locked() {
		return errors.New("the mesh runs with these secrets: stop it with `f2mesh down`, or replace them while it runs with `f2mesh secret rotate --all`")
	}
	for _, name := range append([]string{credential.Username, credential.HealthAPI}, credential.Names(credential.All())...) {
		done, err := st.SetUpSecret(ctx, files, name, c.Force, c.DryRun)
		if err != nil {
			return err
		}
		fmt.Printf("%-14s %s\n", done, name)
	}
	fmt.Println("in", files.Dir)
	if c.Dir != "" || c.DryRun {
		return nil
	}
	return st.RefreshToolFiles(ctx)
}
