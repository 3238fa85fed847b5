// Package nats holds the NATS server's configuration and the declarations of
// streams and consumers, in the JSON that the `nats` CLI takes. They exist once,
// here: pkg/server/natsserver runs a server from them, and setup
// makes the streams and consumers from them (pkg/stream).
package nats

import "embed"

// ServerConf is the server's configuration file.
//
//go:embed nats-server.conf
var ServerConf []byte

// Context is a context of the `nats` CLI without address, password and CA.
//
//go:embed context.json
var Context []byte

// Files holds stream_<name>.json and consumer_<stream>_<name>.json.
//
//go:embed stream_*.json consumer_*.json
var Files embed.FS
