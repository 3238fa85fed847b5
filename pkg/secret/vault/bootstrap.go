package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Services are those that have a policy and an AppRole: the stages, the keeper, the registrar,
// the health service, and the operator, who rotates.
var Services = []string{"bridge", "decoder", "writer", "keeper", "registrar", "health", "operator"}

// Bootstrap prepares a fresh Vault for a mesh. Every step looks first, and leaves
// alone what is as it should be: running it twice changes nothing.
type Bootstrap struct {
	Config     Config
	SecretsDir string   // whose files become the first versions of the secrets; "": none
	Roles      Roles    // how services log in
	Audit      Audit    // where Vault records what is asked of it
	Folders    bool     // each login in <AuthDir>/<service>; who has no such folder gets none
	Reissue    []string // services whose SecretIDs and tokens are destroyed and made anew
	PKI        *PKI     // nil: no PKI engine
	Database   *Database
	DryRun     bool // looks and reports, changes nothing
	Report     func(Step)
}

// Roles are the terms of the services' logins.
type Roles struct {
	TokenTTL    time.Duration `help:"TTL of a service's token. The service renews it." default:"1h"`
	TokenMaxTTL time.Duration `help:"Maximum TTL of a token. Then the service logs in again." default:"24h"`
	SecretIDTTL time.Duration `help:"TTL of a SecretID. Run this again before it expires. 0: no expiry." default:"2160h" name:"secret-id-ttl"`
	WrapTTL     time.Duration `help:"TTL of the wrapping token: a service must start within it." default:"1h"`
	CIDRs       []string      `help:"Networks that services may log in from, such as 10.1.0.0/16; 0.0.0.0/0 and ::/0 for all. Default: this host only, if Vault runs on it." name:"cidr"`
}

// Change is what a step of Bootstrap did, or would do in a dry run.
type Change string

// The kinds of Change.
const (
	Unchanged Change = "unchanged"
	Made      Change = "made"
	Changed   Change = "changed"
	Attention Change = "attention" // a person has to look at it
)

// Step is one thing that a mesh needs of Vault.
type Step struct {
	Change Change
	What   string
}

// Run prepares the Vault with an administrator's token.
func (b *Bootstrap) Run(ctx context.Context, token secret.Value) error {
	networks, err := b.networks()
	if err != nil {
		return err
	}
	library, err := b.Config.connect()
	if err != nil {
		return err
	}
	defer library.CloneConfig().HttpClient.CloseIdleConnections()
	library.SetToken(token.Reveal())
	library.SetClientTimeout(time.Minute) // making keys takes Vault longer than reading
	if _, err := library.Auth().Token().LookupSelfWithContext(ctx); err != nil {
		return fmt.Errorf("looking at the administrator's token: %w", explain(err))
	}
	a := &admin{Bootstrap: b, api: library, networks: networks}
	for _, step := range []func(context.Context) error{a.audit, a.kv, a.policies, a.roles, a.secrets, a.logins, a.pki, a.database} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// admin is one run of Bootstrap.
type admin struct {
	*Bootstrap
	api      *api.Client
	networks []string // that services may log in from
}

// step reports a thing, and changes it unless it is as it should be.
func (a *admin) step(what string, change Change, do func() error) error {
	if change != Unchanged && !a.DryRun {
		if err := do(); err != nil {
			return fmt.Errorf("preparing %s: %w", what, explain(err))
		}
	}
	a.Report(Step{Change: change, What: what})
	return nil
}

// object brings what is at path to hold fields; it may hold others.
func (a *admin) object(ctx context.Context, what, path string, fields map[string]any) error {
	now, err := a.read(ctx, path)
	if err != nil {
		return fmt.Errorf("looking at %s: %w", what, err)
	}
	change := Made
	if now != nil {
		change = Changed
		if holds(now, fields) {
			change = Unchanged
		}
	}
	return a.step(what, change, func() error {
		_, err := a.api.Logical().WriteWithContext(ctx, path, fields)
		return err
	})
}

// read answers nil where there is nothing, and where the engine itself is still
// to be made (a dry run).
func (a *admin) read(ctx context.Context, path string) (map[string]any, error) {
	answer, err := a.api.Logical().ReadWithContext(ctx, path)
	if status(err) == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	if answer == nil {
		return nil, nil
	}
	return answer.Data, nil
}

// engine mounts a secrets engine unless it is there, and refuses another one in
// its place.
func (a *admin) engine(ctx context.Context, path string, want api.MountInput) error {
	mounts, err := a.api.Sys().ListMountsWithContext(ctx)
	if err != nil {
		return fmt.Errorf("listing secrets engines: %w", explain(err))
	}
	what, change := fmt.Sprintf("%s engine at %s/", want.Type, path), Made
	if now := mounts[path+"/"]; now != nil {
		if now.Type != want.Type || now.Options["version"] != want.Options["version"] {
			return fmt.Errorf("there is a %s engine at %s/ already, with options %v, where %s is needed: name another path",
				now.Type, path, now.Options, want.Type)
		}
		change = Unchanged
	}
	return a.step(what, change, func() error { return a.api.Sys().MountWithContext(ctx, path, &want) })
}

func (a *admin) kv(ctx context.Context) error {
	err := a.engine(ctx, a.Config.Mount, api.MountInput{
		Type: "kv", Description: "secrets of f2mesh and others", Options: map[string]string{"version": "2"},
	})
	if err != nil {
		return fmt.Errorf("preparing KV version 2: %w", err)
	}
	return nil
}

// holds tells whether every field of want is in now, after both have been JSON.
func holds(now, want map[string]any) bool {
	for name, value := range want {
		if plain(now[name]) != plain(value) {
			return false
		}
	}
	return true
}

func plain(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	if text := string(data); text != "null" {
		return text
	}
	return "[]" // Vault's empty lists come both ways
}
