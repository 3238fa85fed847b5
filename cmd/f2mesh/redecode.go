package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/decoder"
)

// replaying is an operator's way to have messages decoded once more.
type replaying struct {
	client *mesh.Mesh
	mesh   replay.Mesh
	pools  []*pgxpool.Pool
}

// openReplay connects to the mesh that runs on the state directory. It reads the
// metadata as its decoder does, and decodes with that one's settings.
func openReplay(ctx context.Context, g *globals, log *slog.Logger) (*replaying, error) {
	c, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return nil, err
	}
	r := &replaying{client: c}
	if err := r.open(ctx, log); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *replaying) open(ctx context.Context, log *slog.Logger) error {
	metadata, err := r.pool(ctx, mesh.DatabaseMetadata, mesh.SecretPostgres)
	if err != nil {
		return err
	}
	tables, err := r.pool(ctx, mesh.DatabaseTelemetry, mesh.SecretReader)
	if err != nil {
		return err
	}
	if len(r.client.Description.Decoder) == 0 { // init does not know it
		return errors.New("redecode and dead replay need a mesh of f2mesh up: run.json of a mesh in containers has no settings of the decoder")
	}
	var config decoder.Config
	if err := json.Unmarshal(r.client.Description.Decoder, &config); err != nil {
		return fmt.Errorf("reading the decoder's settings in run.json: %w", err)
	}
	config.Schema = mesh.MetadataSchema
	redecoder, err := decoder.NewRedecoder(config, metadata)
	if err != nil {
		return err
	}
	r.mesh = replay.Mesh{Decoder: redecoder, Log: log}
	if r.mesh.Streams, err = stream.NewClient(r.client.JetStream.Conn(), natsfiles.Files, log); err != nil {
		return err
	}
	r.mesh.Tables, err = replay.NewTables(ctx, tables)
	return err
}

// pool opens connections as the user of a secret.
func (r *replaying) pool(ctx context.Context, database, secretName string) (*pgxpool.Pool, error) {
	run := r.client.Description
	config, err := pgxpool.ParseConfig(run.DSN("", database))
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	config.MaxConns = 2
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.User, c.Password, err = mesh.LogIn(ctx, r.client.Secrets, secretName)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	r.pools = append(r.pools, pool)
	return pool, nil
}

func (r *replaying) Close() {
	for _, p := range r.pools {
		p.Close()
	}
	r.client.Close()
}

type redecodeCommand struct {
	From   *pointInTime `help:"Messages stored on RAW since this time: RFC 3339, a date, or an age (90m, 1d12h)." required:""`
	To     *pointInTime `help:"Messages until this time." required:""`
	MAC    string       `help:"Only this controller."`
	DryRun bool         `help:"Only compare the result with the tables."`
	JSON   bool         `help:"Print JSON."`
}

// Run decodes RAW once more with today's metadata and prints how that compares with
// the tables.
func (c *redecodeCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	interval := replay.Interval{From: c.From.Time, To: c.To.Time, DryRun: c.DryRun}
	if !c.To.After(c.From.Time) {
		return errors.New("--to must be later than --from")
	}
	if c.MAC != "" {
		var err error
		if interval.MAC, err = topic.ParseMAC(c.MAC); err != nil {
			return fmt.Errorf("%q is not a MAC address: 12 hex digits, bare or with - or : between bytes", c.MAC)
		}
	}
	m, err := openReplay(ctx, g, log)
	if err != nil {
		return err
	}
	defer m.Close()
	bar := progress.Count("messages")
	interval.Progress = bar.Set
	difference, err := m.mesh.Redecode(ctx, interval)
	bar.Finish()
	if difference == nil {
		return err
	}
	return errors.Join(err, printAs(c.JSON, difference))
}
