package mqttconn

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
)

// Dial opens the connection that uri names and buffers it. The schemes are
// paho's: tcp and mqtt, or ssl, tls, mqtts, mqtt+ssl and tcps, for which config
// is used and the handshake is done on return. ctx bounds the opening alone.
func Dial(ctx context.Context, uri *url.URL, config *tls.Config) (net.Conn, error) {
	conn, err := open(ctx, uri, config)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", uri.Host, err)
	}
	return Buffer(conn), nil
}

func open(ctx context.Context, uri *url.URL, config *tls.Config) (net.Conn, error) {
	switch uri.Scheme {
	case "tcp", "mqtt":
		return new(net.Dialer).DialContext(ctx, "tcp", uri.Host)
	case "ssl", "tls", "mqtts", "mqtt+ssl", "tcps":
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", uri.Host)
	}
	return nil, fmt.Errorf("unknown scheme %q", uri.Scheme)
}
