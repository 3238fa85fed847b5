package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
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
	all = append(all, unserved(ctx, keeper)...)
	now := time.Now()
	for i := range all {
		all[i].Age = age(now, all[i].Status)
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(all)
	} else {
		err = printSecrets(os.Stdout, all)
	}
	if slices.ContainsFunc(all, func(s mesh.SecretStatus) bool { return s.Downgraded }) {
		err = errors.Join(err, errDowngraded)
	}
	return err
}

// unserved are the credentials that no service uses, as we see them.
func unserved(ctx context.Context, keeper *mesh.Secrets) []mesh.SecretStatus {
	store := secret.NewStore(keeper.Chain, slog.New(slog.DiscardHandler)) // the screen tells
	for _, c := range credential.All() {
		if len(c.Services) == 0 {
			_, _ = store.Get(ctx, c.Name)
		}
	}
	var all []mesh.SecretStatus
	for _, s := range store.Status() {
		all = append(all, mesh.SecretStatus{Status: s})
	}
	return all
}

// age is how old a version is: a file's since it was written, any other's since
// the service has had it.
func age(now time.Time, s secret.Status) time.Duration {
	since := s.Since
	if written, err := time.Parse(time.RFC3339, s.Version); err == nil {
		since = written
	}
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

func printSecrets(out io.Writer, all []mesh.SecretStatus) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SERVICE\tSECRET\tSOURCE\tVERSION\tAGE\tSTATE")
	for _, s := range all {
		state := "ok"
		switch {
		case s.Downgraded:
			state = "DOWNGRADED"
		case s.Problem != "":
			state = "PROBLEM"
		}
		fmt.Fprint(table, cells(cmp.Or(s.Service, "-"), s.Name, cmp.Or(s.Source, "none"), s.Version, s.Age.Round(time.Second).String(), state))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, s := range all {
		if s.Problem != "" {
			fmt.Fprintf(out, "%s: %s: %s\n", plain.Text(cmp.Or(s.Service, "-")), plain.Text(s.Name), plain.Text(s.Problem))
		}
	}
	return nil
}
