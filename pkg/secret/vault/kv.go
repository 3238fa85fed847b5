package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Lookup makes a Client a secret.Source: it reads field password, or value, and
// username of the newest version. A secret or version that was deleted is
// ErrNotFound, one that the policy hides is ErrPermission.
func (c *Client) Lookup(ctx context.Context, name string) (secret.Value, error) {
	var v secret.Value
	err := c.do(ctx, func(client *api.Client) (err error) {
		v, err = readKV(ctx, client, c.mount, name)
		return err
	})
	return v, err
}

// readKV reads below the library's typed calls, which answer alike whether there
// is no such secret or no such engine.
func readKV(ctx context.Context, client *api.Client, mount, name string) (secret.Value, error) {
	answer, err := client.Logical().ReadRawWithContext(ctx, mount+"/data/"+Prefix+"/"+name)
	if answer != nil {
		defer func() { _ = answer.Body.Close() }()
	}
	if err != nil {
		return secret.Value{}, err
	}
	var body struct {
		Data struct {
			Data     map[string]any
			Metadata struct{ Version int }
		}
	}
	if err := answer.DecodeJSON(&body); err != nil {
		return secret.Value{}, fmt.Errorf("reading Vault's response: %w", err)
	}
	return parse(body.Data.Data, body.Data.Metadata.Version)
}

// parse reads the fields of a secret. Its errors say nothing of their values.
func parse(fields map[string]any, version int) (secret.Value, error) {
	for _, name := range []string{"password", "value"} {
		text, ok := fields[name].(string)
		if !ok || text == "" {
			continue
		}
		username, ok := fields["username"].(string)
		if _, there := fields["username"]; there && !ok {
			return secret.Value{}, fmt.Errorf("field username of version %d is not text", version)
		}
		return secret.NewValue(text, "vault", strconv.Itoa(version)).WithUsername(username), nil
	}
	return secret.Value{}, fmt.Errorf("version %d has no field password or value that is text", version)
}

// Put stores a secret if its newest version is cas (0: it does not exist), and
// returns the new version. ErrConflict: it is another.
func (c *Client) Put(ctx context.Context, name string, v secret.Value, cas int) (version int, err error) {
	err = c.do(ctx, func(client *api.Client) (err error) {
		version, err = putKV(ctx, client, c.mount, name, v, cas)
		return err
	})
	return version, err
}

func putKV(ctx context.Context, client *api.Client, mount, name string, v secret.Value, cas int) (version int, err error) {
	field := "value"
	if strings.HasSuffix(name, "password") {
		field = "password"
	}
	fields := map[string]any{field: v.Reveal()}
	if username := v.Username(""); username != "" {
		fields["username"] = username
	}
	answer, err := client.Logical().WriteWithContext(ctx, mount+"/data/"+Prefix+"/"+name,
		map[string]any{"data": fields, "options": map[string]any{"cas": cas}})
	if err != nil {
		return 0, err
	}
	number, _ := answer.Data["version"].(json.Number)
	written, err := number.Int64()
	return int(written), err
}

// Read reads a path of any engine, such as database/creds/reader.
func (c *Client) Read(ctx context.Context, path string) (map[string]any, error) {
	return c.logical(ctx, func(client *api.Client) (*api.Secret, error) {
		return client.Logical().ReadWithContext(ctx, path)
	})
}

// Write writes to a path of any engine, such as pki/sign/device, and returns Vault's
// response.
func (c *Client) Write(ctx context.Context, path string, data map[string]any) (map[string]any, error) {
	return c.logical(ctx, func(client *api.Client) (*api.Secret, error) {
		return client.Logical().WriteWithContext(ctx, path, data)
	})
}

func (c *Client) logical(ctx context.Context, request func(*api.Client) (*api.Secret, error)) (map[string]any, error) {
	var data map[string]any
	err := c.do(ctx, func(client *api.Client) error {
		answer, err := request(client)
		if answer != nil {
			data = answer.Data
		}
		return err
	})
	return data, err
}
