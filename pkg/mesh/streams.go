package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	natsfiles "github.com/f2mesh/f2mesh/nats"
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
