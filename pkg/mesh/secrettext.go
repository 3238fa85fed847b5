package mesh

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// UnservedSecrets are the credentials that no service uses, as we see them.
func UnservedSecrets(ctx context.Context, secrets *Secrets) []SecretStatus {
	store := secret.NewStore(secrets.Chain, slog.New(slog.DiscardHandler)) // the screen tells
	for _, c := range credential.All() {
		if len(c.Services) == 0 {
			_, _ = store.Get(ctx, c.Name)
		}
	}
	var all []SecretStatus
	for _, s := range store.Status() {
		all = append(all, SecretStatus{Status: s})
	}
	return all
}

// SecretAge is how old a version is: a file's since it was written, any other's since
// the service has had it.
func SecretAge(now time.Time, s secret.Status) time.Duration {
	since := s.Since
	if written, err := time.Parse(time.RFC3339, s.Version); err == nil {
		since = written
	}
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

// WriteSecrets writes the statuses as a table, and the problems below it.
func WriteSecrets(out io.Writer, all []SecretStatus) error {
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
		fmt.Fprint(table, plain.Row(cmp.Or(s.Service, "-"), s.Name, cmp.Or(s.Source, "none"), s.Version, s.Age.Round(time.Second).String(), state))
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
