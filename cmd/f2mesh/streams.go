package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// connectPatience is how long setup waits for the NATS server.
const connectPatience = 30 * time.Second

// operatorStreams is the operator's way to the streams.
type operatorStreams struct {
	config  stream.Config
	secrets secret.Source
	log     *slog.Logger
}

// setUp makes and updates streams and consumers, and returns what it changed.
func (o operatorStreams) setUp(ctx context.Context, sizes stream.Sizes, dryRun bool) ([]string, error) {
	store := secret.NewStore(secret.Chain{o.secrets}, slog.New(slog.DiscardHandler))
	nc, err := stream.Connect(o.config, natsserver.Operator, natsCredential(store, natsserver.Operator), o.log)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	bounded, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if err := stream.WaitConnected(bounded, nc); err != nil {
		return nil, fmt.Errorf("connecting to NATS at %s: %w", o.config.URL, err)
	}
	streams, err := stream.NewClient(nc, natsfiles.Files, o.log)
	if err != nil {
		return nil, err
	}
	changes, err := streams.SetUp(ctx, sizes, dryRun)
	if err != nil {
		return changes, fmt.Errorf("setting up the streams: %w", err)
	}
	return changes, nil
}

// streamSetup makes the streams of a mesh whose parts run anywhere.
type streamSetup struct {
	Streams bool   `help:"Create or update the streams and consumers on a NATS server instead." group:"Streams"`
	Disk    string `help:"A directory on the disk that holds the streams, to limit the space that --rate may use." type:"existingdir" group:"Streams"`
	stream.Config
	stream.Sizes
}

// run sets up the streams of the mesh that runs on the state directory, or else those at
// --nats-url, with the operator's password from the folder of secrets or from where the
// mesh's are.
func (c *streamSetup) run(ctx context.Context, st state, secretsDir string, dryRun bool, log *slog.Logger) error {
	secrets, err := st.keeper(log)
	if err != nil {
		return err
	}
	defer secrets.close()
	chain := secrets.Chain
	if secretsDir != "" {
		chain = append(secret.Chain{secret.Files(secretsDir)}, chain...)
	}
	to, sizes := operatorStreams{config: c.Config, secrets: chain, log: log}, c.Sizes
	if c.Disk != "" {
		sizes.Free = func() (uint64, error) { return doctor.DiskFree(c.Disk) }
	}
	if r, err := st.load(); err == nil {
		to.config = stream.Config{URL: "tls://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.NATS)), CAFile: r.CAFile}
		sizes.Free = func() (uint64, error) { return doctor.DiskFree(st.path("nats")) }
	}
	changes, err := to.setUp(ctx, sizes, dryRun)
	for _, change := range changes {
		fmt.Println(change)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%d changes, %s\n", len(changes), map[bool]string{false: "done", true: "none made: a dry run"}[dryRun])
	return err
}
