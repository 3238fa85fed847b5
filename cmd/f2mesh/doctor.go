package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

type doctorCommand struct {
	JSON   bool     `help:"Print JSON."`
	Only   []string `help:"Checks to run, by name or by prefix (mqtt, nats, ...)."`
	List   bool     `help:"List the checks without running them."`
	Strict bool     `help:"Exit with status 1 on warnings and skipped checks, too."`
	Docker string   `help:"Socket of the Docker API." default:"/var/run/docker.sock" env:"F2MESH_DOCKER_SOCKET"`

	containerDoctor
}

// Run tries all items and prints them; its exit status is 1 if one failed, or with
// --strict was not good.
func (c *doctorCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	if c.List {
		return listChecks(os.Stdout)
	}
	m, done, err := c.find(g.state(), log)
	if err != nil {
		return err
	}
	defer done()
	m.Docker, m.Vulncheck = c.Docker, vulncheck()
	results, err := doctor.Run(ctx, m, c.Only...)
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(results)
	} else {
		err = printResults(os.Stdout, results)
	}
	if err != nil {
		return err
	}
	if c.Strict {
		return doctor.Verdict(results, doctor.Skipped, doctor.Warning)
	}
	return doctor.Verdict(results)
}

// find answers the mesh to look at, in containers or of `f2mesh up`.
func (c *doctorCommand) find(st mesh.State, log *slog.Logger) (m *doctor.Mesh, done func(), err error) {
	secrets, err := st.Secrets(log)
	if err != nil {
		return nil, nil, err
	}
	if c.Compose != "" {
		m, err = c.patient()
	} else {
		var r mesh.Description
		r, err = st.Load()
		m = patient(st, r, secrets.LogIn)
	}
	if err != nil {
		secrets.Close()
		return nil, nil, err
	}
	m.Vault = secrets.Vault
	return m, secrets.Close, nil
}

// patient is the mesh that the doctor looks at.
func patient(s mesh.State, r mesh.Description, logIn func(context.Context, string) (string, string, error)) *doctor.Mesh {
	m := &doctor.Mesh{
		Dir: s.Dir, PID: r.PID, Host: r.Host, Public: r.Public, CAFile: r.CAFile, LogIn: logIn,
		Ports: doctor.Ports{
			MQTT: r.Ports.MQTT, MQTTTLS: r.Ports.MQTTTLS, People: r.Ports.People, WebSocket: r.Ports.WebSocket,
			NATS: r.Ports.NATS, Postgres: r.Ports.Postgres, PgBouncer: r.Ports.PgBouncer,
			HTTP: r.Ports.HTTP, EST: r.Ports.EST,
		},
		Now: time.Now, Free: doctor.DiskFree, Secrets: []string{credential.HealthAPI},
	}
	for _, one := range credential.All() {
		m.Secrets = append(m.Secrets, one.Name)
	}
	return m
}

// vulncheck looks this program up, in a clone of the project.
func vulncheck() []string {
	self, err := os.Executable()
	if err != nil || !mesh.Exists("tools/run") || !mesh.Exists("tools/govulncheck/go.mod") {
		return nil
	}
	return []string{"tools/run", "govulncheck", "-mode=binary", self}
}

func listChecks(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range doctor.Checks() {
		fmt.Fprintf(table, "%s\t%s\n", c.Name, c.Try)
	}
	return table.Flush()
}

// printResults prints one line an item, and below it what is to be done.
func printResults(out io.Writer, results []doctor.Result) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "STATE\tCHECK\tTRIED")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%s\t%s\n\t\t  seen: %s\n", r.State, r.Name, r.Try, plain.Text(r.Seen))
		if r.Fix != "" {
			fmt.Fprintf(table, "\t\t  fix: %s\n", plain.Text(r.Fix))
		}
	}
	return table.Flush()
}
