package local

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

func (m *Parts) runNATS(ctx context.Context, ready func()) error {
	server, err := m.startNATS(ctx, m.Cfg.Unsynced)
	if err != nil {
		return err
	}
	if err := m.setUpStreams(ctx); err != nil {
		return errors.Join(err, stopped(ctx, server.Stop))
	}
	ready()
	select {
	case <-ctx.Done():
		return stopped(ctx, server.Stop)
	case <-server.Failed():
	}
	m.Log.Error("JetStream cannot write: NATS starts again once the disk takes data", "directory", m.State.Path("nats"))
	for !writable(m.State.Path("nats")) {
		select {
		case <-ctx.Done():
			return stopped(ctx, server.Stop)
		case <-time.After(time.Second):
		}
	}
	err = stopped(ctx, server.Stop)
	if errors.Is(err, natsserver.ErrRunning) {
		m.stuckOnce.Do(func() { close(m.stuck) })
	}
	return errors.Join(errors.New("a stream could not be written"), err)
}

// writable reports whether the disk takes more than a stream's next block.
func writable(dir string) bool {
	file, err := os.CreateTemp(dir, "room-")
	if err != nil {
		return false
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(make([]byte, 16<<20))
	return errors.Join(err, file.Sync(), file.Close()) == nil
}

// startNATS starts the server; filling is natsserver.Config.Filling.
func (m *Parts) startNATS(ctx context.Context, filling bool) (*natsserver.Server, error) {
	cfg, err := m.natsServer(ctx, 0)
	if err != nil {
		return nil, err
	}
	cfg.Filling = filling
	server, err := natsserver.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m.set(func() { m.Nats, m.Cfg.Ports.NATS = server, server.Port() })
	return server, nil
}

// natsServer is one of the NATS servers, without a port of its own if that is free to choose.
func (m *Parts) natsServer(ctx context.Context, i int) (natsserver.Config, error) {
	cert, key := m.ServerPair()
	users, err := mesh.LogIns(ctx, m.Secrets, credential.NATS)
	if err != nil {
		return natsserver.Config{}, err
	}
	ports := m.Ports()
	return natsserver.Config{
		Dir: m.State.Path(mesh.NATSNode(i)), Host: m.Cfg.Host, Port: append([]int{ports.NATS}, ports.Nodes...)[i],
		CertFile: cert, KeyFile: key, CAFile: m.Authority.CAFile(), Passwords: users, Log: m.Log.With("service", mesh.NATSNode(i)),
	}, nil
}

// setUpStreams makes the streams and consumers, before a service looks for them, with
// the operator's rights.
func (m *Parts) setUpStreams(ctx context.Context) error {
	sizes := m.Cfg.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(m.State.Path("nats")) }
	to := mesh.OperatorStreams{Config: m.natsClient(), Secrets: m.Secrets, Log: m.Log}
	changes, err := to.SetUp(ctx, sizes, false)
	for _, change := range changes {
		m.Log.Info("set up", "change", change)
	}
	return err
}

// natsClient is how parts of this process reach NATS: through memory, or any server of a
// cluster.
func (m *Parts) natsClient() stream.Config {
	if len(m.Ports().Nodes) > 0 {
		return stream.Config{URL: m.Describe().NATSURL(), CAFile: m.Authority.CAFile()}
	}
	return stream.Config{URL: "nats://in-process", InProcess: m}
}
