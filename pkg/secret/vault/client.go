// Package vault speaks with HashiCorp Vault: it logs a service in by AppRole and
// keeps it logged in, reads and writes the mesh's secrets in KV version 2, and
// prepares a fresh Vault for a mesh (Bootstrap).
//
// A Client has no goroutine: the first request that finds a token old renews or replaces
// it. Polling, as secret.Store does, keeps it alive.
// Client.turn guards the token; nothing else changes after Open.
package vault

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Client is one service's session with Vault, and the first link of its chain.
// It is safe for concurrent use.
type Client struct {
	api   *api.Client // without a token
	login login       // nil: the token was given and is used as it is
	mount string
	log   *slog.Logger

	turn  chan struct{} // full while a request renews or replaces the token
	token *token        // nil: not logged in
}

// login gets a new token.
type login interface {
	token(ctx context.Context, client *api.Client) (*api.SecretAuth, error)
}

// token is one login. It does not change, except that a renewal replaces it.
type token struct {
	api     *api.Client
	lease   time.Duration // of the login; a renewal that gives less has met the maximum
	renewAt time.Time     // zero: never
	expires time.Time     // zero: never
}

// Open makes a client that logs in by AppRole when it is first used, with
// <service>.role_id and <service>.secret_id of cfg.AuthDir. It sends no request yet.
func Open(cfg Config, service string, log *slog.Logger) (*Client, error) {
	library, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	return &Client{
		api: library, mount: cfg.Mount, log: log, turn: make(chan struct{}, 1),
		login: &appRole{service: service, files: secret.Files(cfg.AuthDir), log: log},
	}, nil
}

// OpenToken makes a client that uses a token as it is: the operator's.
func OpenToken(cfg Config, given secret.Value, log *slog.Logger) (*Client, error) {
	library, err := cfg.connect()
	if err != nil {
		return nil, err
	}
	c := &Client{api: library, mount: cfg.Mount, log: log, turn: make(chan struct{}, 1)}
	if c.token, err = c.newToken(&api.SecretAuth{ClientToken: given.Reveal()}); err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the idle connections. The client can still be used.
func (c *Client) Close() { c.api.CloneConfig().HttpClient.CloseIdleConnections() }

// do runs a request with a valid token.
func (c *Client) do(ctx context.Context, request func(*api.Client) error) error {
	t, err := c.session(ctx, nil)
	if err != nil {
		return err
	}
	err = request(t.api)
	if status(err) != http.StatusForbidden || c.login == nil {
		return explain(err)
	}
	// Either the policy refuses or the token was revoked: Vault returns the same for both.
	// A token that is valid may look at itself.
	if _, lookErr := t.api.Auth().Token().LookupSelfWithContext(ctx); status(lookErr) != http.StatusForbidden {
		return explain(err)
	}
	if t, err = c.session(ctx, t); err != nil {
		return err
	}
	return explain(request(t.api))
}

// session returns a token that is valid as far as its lease tells, and is not
// the refused one.
func (c *Client) session(ctx context.Context, refused *token) (*token, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, explain(ctx.Err())
	}
	now, old := time.Now(), c.token
	valid := old != nil && old != refused && (old.expires.IsZero() || now.Before(old.expires))
	switch {
	case valid && (old.renewAt.IsZero() || now.Before(old.renewAt)):
		return old, nil
	case valid && c.renew(ctx):
		return c.token, nil
	case old != nil && old == refused:
		c.log.Warn("vault no longer knows the token, logging in again")
	}
	fresh, err := c.enter(ctx)
	if err != nil && valid {
		return old, nil // it still works for a while
	}
	if err != nil {
		return nil, err
	}
	c.token = fresh
	return fresh, nil
}

// enter logs in.
func (c *Client) enter(ctx context.Context) (*token, error) {
	auth, err := c.login.token(ctx, c.api)
	if err != nil {
		return nil, fmt.Errorf("logging in to Vault: %w", err)
	}
	c.log.Info("logged in to vault", "lease_seconds", auth.LeaseDuration)
	return c.newToken(auth)
}

// renew reports whether the token has a good part of its lease again. Near its
// maximum life Vault shortens the lease, and it is time to log in.
func (c *Client) renew(ctx context.Context) bool {
	old := c.token
	answer, err := old.api.Auth().Token().RenewSelfWithContext(ctx, int(old.lease.Seconds()))
	if err != nil || answer == nil || answer.Auth == nil {
		c.log.Debug("vault did not renew the token", "error", explain(err))
		return false
	}
	lease := time.Duration(answer.Auth.LeaseDuration) * time.Second
	renewed := *old
	renewed.renewAt, renewed.expires = deadlines(lease)
	c.token = &renewed
	return lease >= old.lease/2
}

func (c *Client) newToken(auth *api.SecretAuth) (*token, error) {
	library, err := c.api.CloneWithHeaders()
	if err != nil {
		return nil, fmt.Errorf("setting up Vault's client: %w", err)
	}
	library.SetToken(auth.ClientToken)
	t := &token{api: library, lease: time.Duration(auth.LeaseDuration) * time.Second}
	if t.lease > 0 {
		t.renewAt, t.expires = deadlines(t.lease)
	}
	return t, nil
}

// deadlines leave two more polls or more to a lease of a minute.
func deadlines(lease time.Duration) (renewAt, expires time.Time) {
	now := time.Now()
	return now.Add(lease / 2), now.Add(lease)
}
