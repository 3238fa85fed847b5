package mqttconn

import (
	"crypto/tls"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDial(t *testing.T) {
	config := tlsConfig(t)
	plain, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	secure, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	for scheme, l := range map[string]net.Listener{"tcp": plain, "mqtt": plain, "ssl": secure, "mqtts": secure} {
		t.Run(scheme, func(t *testing.T) {
			var wg sync.WaitGroup
			wg.Go(func() { echo(t, l) })
			c, err := Dial(t.Context(), &url.URL{Scheme: scheme, Host: l.Addr().String()}, config)
			require.NoError(t, err)
			write(t, c, "hello")
			b := make([]byte, 5)
			_, err = io.ReadFull(c, b)
			require.NoError(t, err)
			require.Equal(t, "hello", string(b))
			require.NoError(t, c.Close())
			wg.Wait()
		})
	}
	require.NoError(t, plain.Close())
	require.NoError(t, secure.Close())

	_, err = Dial(t.Context(), &url.URL{Scheme: "tcp", Host: plain.Addr().String()}, nil)
	require.ErrorContains(t, err, "connecting to 127.0.0.1:")
	_, err = Dial(t.Context(), &url.URL{Scheme: "gopher", Host: "h"}, nil)
	require.ErrorContains(t, err, `unknown scheme "gopher"`)
}

func echo(t *testing.T, l net.Listener) {
	t.Helper()
	c, err := l.Accept()
	if err == nil {
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}
}
