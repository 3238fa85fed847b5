package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/natsserver"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// connectRunning connects the operator to the NATS server of the mesh that runs
// on the state directory.
func connectRunning(ctx context.Context, g *globals, log *slog.Logger) (*nats.Conn, running, error) {
	st := state{dir: g.StateDir}
	r, err := st.load()
	if err != nil {
		return nil, r, err
	}
	secrets, err := st.keeper(log)
	if err != nil {
		return nil, r, err
	}
	defer secrets.close()
	h := &host{
		nats:    stream.Config{URL: "tls://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.NATS)), CAFile: r.CAFile},
		secrets: secret.NewStore(secrets.Chain, slog.New(slog.DiscardHandler)), log: log, // WaitConnected tells
	}
	nc, err := stream.Connect(h.nats, natsserver.Operator, h.natsCredential(natsserver.Operator), log)
	if err != nil {
		return nil, r, err
	}
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := stream.WaitConnected(bounded, nc); err != nil {
		nc.Close()
		return nil, r, fmt.Errorf("connecting to NATS: %w", err)
	}
	return nc, r, nil
}
