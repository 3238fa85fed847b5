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
var Services = []string{"bridge", "decoder", "writer", "keeper", "registrar", "health", "alarm", "operator"}

// Bootstrap prepares a fresh Vault for a mesh. It is a list of items (item): each is read,
// compared, written if it differs, and reported. Running it twice changes nothing.
type Bootstrap struct {
	Config     Config
	SecretsDir string      // whose files become the first versions of the secrets; "": none
	Roles      Roles       // how services log in
	Audit      AuditDevice // where Vault records what is asked of it
	Folders    bool        // each login in <AuthDir>/<service>; services without such a folder get none
	Reissue    []string    // services whose SecretIDs and tokens are destroyed and replaced
	PKI        *PKI        // nil: no PKI engine
	Database   *DatabaseEngine
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
	for _, group := range []func(context.Context) ([]item, error){a.audit, a.kv, a.policies, a.roles, a.secrets, a.logins, a.pki, a.database} {
		items, err := group(ctx)
		if err != nil {
			return err
		}
		for i := range items {
			if err := a.ensure(ctx, &items[i]); err != nil {
				return err
			}
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

// item is one thing that a mesh needs of Vault.
type item struct {
	what string
	// look compares what is there with what is needed.
	look func(context.Context) (Change, error)
	// write makes or changes it.
	write func(context.Context, Change) error
	// attention says what a person has to do where look returns Attention.
	attention string
}

// ensure brings an item to what is needed, and reports it.
func (a *admin) ensure(ctx context.Context, one *item) error {
	change, err := one.look(ctx)
	if err != nil {
		return fmt.Errorf("reading %s: %w", one.what, explainVault(err))
	}
	switch {
	case change == Attention:
		a.Report(Step{change, one.what + ": " + one.attention})
		return nil
	case change != Unchanged && !a.DryRun:
		if err := one.write(ctx, change); err != nil {
			return fmt.Errorf("preparing %s: %w", one.what, explainVault(err))
		}
	}
	a.Report(Step{change, one.what})
	return nil
}

// unless is Made, or Unchanged for a thing that is there.
func unless(there bool) Change {
	if there {
		return Unchanged
	}
	return Made
}

// compare returns how an object compares with the fields that it should have; it may have
// others. Nil: it is not there.
func compare(now, fields map[string]any) Change {
	switch {
	case now == nil:
		return Made
	case holds(now, fields):
		return Unchanged
	}
	return Changed
}

// object is an object at path that has fields.
func (a *admin) object(what, path string, fields map[string]any) item {
	return item{
		what: what,
		look: func(ctx context.Context) (Change, error) {
			now, err := a.read(ctx, path)
			return compare(now, fields), err
		},
		write: func(ctx context.Context, _ Change) error { return a.put(ctx, path, fields) },
	}
}

func (a *admin) put(ctx context.Context, path string, fields map[string]any) error {
	_, err := a.api.Logical().WriteWithContext(ctx, path, fields)
	return err
}

// read returns nil where there is nothing, and where the engine itself is not there yet
// (a dry run).
func (a *admin) read(ctx context.Context, path string) (map[string]any, error) {
	answer, err := a.api.Logical().ReadWithContext(ctx, path)
	if status(err) == http.StatusNotFound || err == nil && answer == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return answer.Data, nil
}

// engine is a secrets engine. Another one in its place is an error.
func (a *admin) engine(path string, want api.MountInput) item {
	return item{
		what: fmt.Sprintf("%s engine at %s/", want.Type, path),
		look: func(ctx context.Context) (Change, error) {
			mounts, err := a.api.Sys().ListMountsWithContext(ctx)
			if err != nil {
				return "", err
			}
			now := mounts[path+"/"]
			if now != nil && (now.Type != want.Type || now.Options["version"] != want.Options["version"]) {
				return "", fmt.Errorf("there is a %s engine with options %v already, and %s with options %v is needed: name another path",
					now.Type, now.Options, want.Type, want.Options)
			}
			return unless(now != nil), nil
		},
		write: func(ctx context.Context, _ Change) error { return a.api.Sys().MountWithContext(ctx, path, &want) },
	}
}

func (a *admin) kv(context.Context) ([]item, error) {
	return []item{a.engine(a.Config.Mount, api.MountInput{
		Type: "kv", Description: "secrets of f2mesh and others", Options: map[string]string{"version": "2"},
	})}, nil
}

// holds reports whether every field of want is in now, after both have been JSON.
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
