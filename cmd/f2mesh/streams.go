package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

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
func (c *streamSetup) run(ctx context.Context, st mesh.State, secretsDir string, dryRun bool, log *slog.Logger) error {
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	chain := secrets.Chain
	if secretsDir != "" {
		chain = append(secret.Chain{secret.Files(secretsDir)}, chain...)
	}
	to, sizes := mesh.OperatorStreams{Config: c.Config, Secrets: chain, Log: log}, c.Sizes
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
