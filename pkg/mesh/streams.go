package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// connectPatience is how long setup waits for the NATS server.
const connectPatience = 30 * time.Second

// OperatorStreams is the operator's way to the streams.
type OperatorStreams struct {
	Config  stream.Config
	Secrets secret.Source
	Log     *slog.Logger
}

// SetUp makes and updates streams and consumers, and returns what it changed.
func (o OperatorStreams) SetUp(ctx context.Context, sizes stream.Sizes, dryRun bool) ([]string, error) {
	store := secret.NewStore(secret.Chain{o.Secrets}, slog.New(slog.DiscardHandler))
	nc, err := stream.Connect(o.Config, natsserver.Operator, NatsCredential(store, natsserver.Operator), o.Log)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	bounded, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := stream.WaitConnected(bounded, nc); err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", o.Config.URL, err)
	}
	streams, err := stream.NewClient(nc, natsfiles.Files, o.Log)
	if err != nil {
		return nil, err
	}
	changes, err := streams.SetUp(ctx, sizes, dryRun)
	if err != nil {
		return changes, fmt.Errorf("setting up the streams: %w", err)
	}
	return changes, nil
}

// StreamSetup makes the streams of a mesh whose parts run anywhere.
type StreamSetup struct {
	Streams bool   `help:"Create or update the streams and consumers on a NATS server instead." group:"Streams"`
	Disk    string `help:"A directory on the disk that holds the streams, to limit the space that --rate may use." type:"existingdir" group:"Streams"`
	stream.Config
	stream.Sizes
}

// Run sets up the streams of the mesh that runs on the state directory, or else those at
// --nats-url, with the operator's password from the folder of secrets or from where the
// mesh's are.
func (c *StreamSetup) Run(ctx context.Context, st State, secretsDir string, dryRun bool, log *slog.Logger) error {
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	chain := secrets.Chain
	if secretsDir != "" {
		chain = append(secret.Chain{secret.Files(secretsDir)}, chain...)
	}
	to, sizes := OperatorStreams{Config: c.Config, Secrets: chain, Log: log}, c.Sizes
	if c.Disk != "" {
		sizes.Free = func() (uint64, error) { return doctor.DiskFree(c.Disk) }
	}
	if r, err := st.Load(); err == nil {
		to.Config = stream.Config{URL: r.NATSURL(), CAFile: r.CAFile}
		sizes.Free = func() (uint64, error) { return doctor.DiskFree(st.Path("nats")) }
	}
	changes, err := to.SetUp(ctx, sizes, dryRun)
	for _, change := range changes {
		fmt.Println(change)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%d changes, %s\n", len(changes), map[bool]string{false: "done", true: "none made: a dry run"}[dryRun])
	return err
}
