package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// client is the operator's way into the mesh that runs on a state directory: where
// its parts are, the secrets to log in to them with, and a connection to NATS.
type client struct {
	state   state
	run     running
	secrets *keeper
	js      jetstream.JetStream
}

// openClient connects to the mesh that runs on the state directory.
func openClient(ctx context.Context, st state, log *slog.Logger) (*client, error) {
	c := &client{state: st}
	var err error
	if c.run, err = c.state.load(); err != nil {
		return nil, err
	}
	if c.secrets, err = c.state.keeper(log); err != nil {
		return nil, err
	}
	if err := c.connect(ctx, log); err != nil {
		c.secrets.close()
		return nil, err
	}
	return c, nil
}

func (c *client) connect(ctx context.Context, log *slog.Logger) error {
	to := stream.Config{URL: "tls://" + net.JoinHostPort(c.run.Host, strconv.Itoa(c.run.Ports.NATS)), CAFile: c.run.CAFile}
	store := secret.NewStore(c.secrets.Chain, slog.New(slog.DiscardHandler)) // WaitConnected tells
	nc, err := stream.Connect(to, natsserver.Operator, natsCredential(store, natsserver.Operator), log)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err = stream.WaitConnected(bounded, nc); err == nil {
		c.js, err = jetstream.New(nc)
	}
	if err != nil {
		nc.Close()
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	return nil
}

func (c *client) close() {
	c.js.Conn().Close()
	c.secrets.close()
}

// natsCredential is that of a user of nats/nats-server.conf.
func natsCredential(store *secret.Store, user string) secret.Credential {
	return secret.Credential{Store: store, Password: fmt.Sprintf(secretNATSPasswords, user), User: user}
}
