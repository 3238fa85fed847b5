package decoder

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
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Replay decodes messages again, for an operator. Close it.
type Replay struct {
	replay.Replayer

	mesh  *mesh.Mesh
	pools []*pgxpool.Pool
}

// OpenReplay reads the metadata as the mesh's decoder does, and decodes with its settings.
func OpenReplay(ctx context.Context, m *mesh.Mesh, log *slog.Logger) (*Replay, error) {
	r := &Replay{mesh: m}
	if err := r.open(ctx, log); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Replay) open(ctx context.Context, log *slog.Logger) error {
	metadata, err := r.pool(ctx, mesh.DatabaseMetadata, mesh.SecretPostgres)
	if err != nil {
		return err
	}
	tables, err := r.pool(ctx, mesh.DatabaseTelemetry, mesh.SecretReader)
	if err != nil {
		return err
	}
	if len(r.mesh.Description.Decoder) == 0 { // init does not know it
		return errors.New("redecode and dead replay need a mesh of f2mesh up: run.json of a mesh in containers has no settings of the decoder")
	}
	var config Config
	if err := json.Unmarshal(r.mesh.Description.Decoder, &config); err != nil {
		return fmt.Errorf("reading the decoder's settings in run.json: %w", err)
	}
	config.Schema = mesh.MetadataSchema
	redecoder, err := NewRedecoder(config, metadata)
	if err != nil {
		return err
	}
	r.Replayer = replay.Replayer{Decoder: redecoder, Log: log}
	if r.Streams, err = stream.NewClient(r.mesh.JetStream.Conn(), natsfiles.Files, log); err != nil {
		return err
	}
	r.Tables, err = replay.NewTables(ctx, tables)
	return err
}

// pool opens connections as the user of a secret.
func (r *Replay) pool(ctx context.Context, database, secretName string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(r.mesh.Description.DSN("", database))
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	config.MaxConns = 2
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) (err error) {
		c.User, c.Password, err = mesh.LogIn(ctx, r.mesh.Secrets, secretName)
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to PostgreSQL: %w", err)
	}
	r.pools = append(r.pools, pool)
	return pool, nil
}

// Close ends the connections.
func (r *Replay) Close() {
	for _, p := range r.pools {
		p.Close()
	}
}
