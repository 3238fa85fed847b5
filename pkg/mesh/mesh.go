// Package mesh is a running mesh as one handle: its description, the operator's secrets, its
// streams and databases, and what is done to a whole mesh: provisioning, rotation, backup.
// Package local runs a mesh on this machine, package containers those parts of it that
// compose.yaml runs.
package mesh

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Mesh is the operator's way into the mesh that runs on a state directory: where
// its parts are, the secrets to log in to them with, and a connection to NATS.
type Mesh struct {
	State       State
	Description Description
	Secrets     *Secrets
	JetStream   jetstream.JetStream
}

// Open connects to the mesh that runs on the state directory.
func Open(ctx context.Context, st State, log *slog.Logger) (*Mesh, error) {
	c := &Mesh{State: st}
	var err error
	if c.Description, err = c.State.Load(); err != nil {
		return nil, err
	}
	if c.Secrets, err = c.State.Secrets(log); err != nil {
		return nil, err
	}
	if err := c.connect(ctx, log); err != nil {
		c.Secrets.Close()
		return nil, err
	}
	return c, nil
}

func (c *Mesh) connect(ctx context.Context, log *slog.Logger) error {
	to := stream.Config{URL: c.Description.NATSURL(), CAFile: c.Description.CAFile}
	store := secret.NewStore(c.Secrets.Chain, slog.New(slog.DiscardHandler)) // WaitConnected tells
	nc, err := stream.Connect(to, natsserver.Operator, NatsCredential(store, natsserver.Operator), log)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err = stream.WaitConnected(bounded, nc); err == nil {
		c.JetStream, err = jetstream.New(nc)
	}
	if err != nil {
		nc.Close()
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	return nil
}

// Close ends the connections.
func (c *Mesh) Close() {
	c.JetStream.Conn().Close()
	c.Secrets.Close()
}

// NatsCredential is that of a user of nats/nats-server.conf.
func NatsCredential(store *secret.Store, user string) secret.Login {
	return secret.Login{Store: store, Password: fmt.Sprintf(secretNATSPasswords, user), User: user}
}
