package service

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type pipe struct{ net.Conn }

func (p pipe) InProcessConn() (net.Conn, error) { return p.Conn, nil }

func TestArrivals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		var a arrivals
		conn, err := a.of(pipe{near}).InProcessConn()
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		read := func() (after time.Duration) {
			began := time.Now()
			go func() { _, _ = far.Write([]byte("x")) }()
			n, err := conn.Read(make([]byte, 1))
			require.NoError(t, err)
			require.Equal(t, 1, n)
			return time.Since(began)
		}
		assert.Zero(t, read(), "the control")
		release := a.hold()
		go func() { time.Sleep(time.Millisecond); release() }()
		assert.Equal(t, time.Millisecond, read())
		assert.Zero(t, read())
		release = a.hold()
		assert.Equal(t, longestHold, read(), "it does not hold for good")
		release()
		assert.Zero(t, read())
	})
}
