package natsserver

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestFullDisk fills the disk under a stream. The server stores nothing more until it is
// started again, though there is room: that has to be seen.
func TestFullDisk(t *testing.T) {
	cfg := testConfig(t)
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o700))
	if err := syscall.Mount("tmpfs", cfg.Dir, "tmpfs", 0, "size=64m"); errors.Is(err, syscall.EPERM) {
		t.Skip("mounting a small disk needs root")
	} else {
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(cfg.Dir, 0)) })
	const subject = "f2.raw.tele.e4fd45f654be.sensor-mode.1.sensor-1"
	publish := func(s *Server) error {
		js, err := jetstream.New(connect(t, s, cfg, Operator))
		require.NoError(t, err)
		_, err = js.Publish(t.Context(), subject, make([]byte, 64<<10))
		return err
	}
	s, err := Start(t.Context(), cfg)
	require.NoError(t, err)
	js, err := jetstream.New(connect(t, s, cfg, Operator))
	require.NoError(t, err)
	_, err = js.CreateStream(t.Context(), streamConfig(t, "raw"))
	require.NoError(t, err)
	require.NoError(t, publish(s))
	select {
	case <-s.Failed():
		require.Fail(t, "the control: the disk is not full yet")
	default:
	}

	filler := filepath.Join(cfg.Dir, "filler")
	file, err := os.Create(filler)
	require.NoError(t, err)
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, file.Close())
	for range 3 {
		require.Error(t, publish(s))
	}
	<-s.Failed()
	require.NoError(t, os.Remove(filler))
	require.Error(t, publish(s), "the control: room alone does not help")
	stopServer(t, s)
	require.NoError(t, publish(startServer(t, cfg)))
}
