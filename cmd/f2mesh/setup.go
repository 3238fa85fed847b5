package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

type setupCommand struct {
	Dir    string `help:"Directory of the secret files. Default: the mesh's own." type:"path"`
	Force  bool   `help:"Replace existing secrets. The mesh must be stopped; use secret rotate for a running one."`
	DryRun bool   `help:"Show what would be done without doing it."`

	containers.Setup
	streamSetup
}

// Run makes a file for each secret, and says what it made and what was there.
func (c *setupCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	switch {
	case c.Streams && (c.Compose != "" || c.Force):
		return errors.New("--compose and --force are not for --streams")
	case c.Streams:
		return c.streamSetup.run(ctx, g.state(), c.Dir, c.DryRun, log)
	case c.Compose != "" && (c.Force || c.Dir != ""):
		return errors.New("--force and --dir are not for --compose: move a secret's file away to have it made anew")
	case c.Compose != "":
		return c.Setup.Run(ctx, c.DryRun)
	}
	st := g.state()
	files := st.SecretFiles()
	if c.Dir != "" {
		files = credential.Files{Dir: c.Dir}
	} else if c.Force && st.Locked() {
		return errors.New("the mesh runs with these secrets: stop it with `f2mesh down`, or replace them while it runs with `f2mesh secret rotate --all`")
	}
	for _, name := range append([]string{credential.Username, credential.HealthAPI}, mesh.CredentialNames()...) {
		done, err := c.one(ctx, files, name, st)
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

// one makes one secret and answers what it did.
func (c *setupCommand) one(ctx context.Context, files credential.Files, name string, st mesh.State) (string, error) {
	_, err := files.Lookup(ctx, name)
	missing := errors.Is(err, secret.ErrNotFound)
	if err != nil && !missing {
		return "", err
	}
	switch {
	case !missing && !c.Force:
		return "kept", nil
	case !missing && name == mesh.SecretSuperuser && c.Dir == "" && mesh.Exists(st.Path("postgres", "data")):
		return "kept: in use", nil // the cluster was made with it, and only a rotation can tell it another
	}
	does := "made"
	if !missing {
		does = "replaced"
	}
	if c.DryRun {
		return "would be " + does, nil
	}
	if name == credential.Username {
		return does, files.WriteText(name, "bridge")
	}
	return does, files.Make(name)
}
