package main

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

type envCommand struct{}

// Run prints shell variables for `eval`. Passwords are named by file.
func (envCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	st := g.state()
	r, err := st.Load()
	if err != nil {
		return err
	}
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	variables, err := mesh.ShellVariables(ctx, st, r, secrets)
	if err != nil {
		return err
	}
	for _, v := range variables {
		fmt.Printf("export %s=%s\n", v[0], mesh.ShellQuote(v[1]))
	}
	return nil
}
