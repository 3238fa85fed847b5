package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// logins are the files that each service logs in with.
func (a *admin) logins(context.Context) (items []item, err error) {
	if !a.DryRun && !a.Folders {
		if err := os.MkdirAll(a.Config.AuthDir, 0o700); err != nil {
			return nil, fmt.Errorf("creating the directory of the logins: %w", err)
		}
	}
	for _, service := range Services {
		if _, err := os.Stat(a.dir(service)); !a.Folders || err == nil {
			items = append(items, a.roleID(service), a.secretID(service))
		}
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("%s has no folder of a service", a.Config.AuthDir)
	}
	return items, nil
}

func (a *admin) roleID(service string) item {
	name, id := service+".role_id", ""
	return item{
		what: "file " + a.file(name),
		look: func(ctx context.Context) (Change, error) {
			data, err := a.read(ctx, rolePath(service)+"/role-id")
			if err != nil {
				return "", err
			}
			id, _ = data["role_id"].(string)
			kept, change, err := a.kept(ctx, name)
			if change == Unchanged && kept.Reveal() != id {
				change = Changed
			}
			return change, err
		},
		write: func(context.Context, Change) error { return a.write(name, id) },
	}
}

// secretID is a response-wrapped SecretID, unless the file holds a good one.
func (a *admin) secretID(service string) item {
	name, reissue := service+".secret_id", slices.Contains(a.Reissue, service)
	return item{
		what:      "file " + a.file(name),
		attention: "its wrapping token was used or has expired; --reissue " + service + " makes a new one",
		look: func(ctx context.Context) (Change, error) {
			kept, change, err := a.kept(ctx, name)
			switch {
			case err != nil || change == Made:
				return change, err
			case reissue:
				return Changed, nil
			case isWrapping(kept):
				return a.wrappingState(ctx, kept)
			}
			return a.secretIDState(ctx, service, kept)
		},
		write: func(ctx context.Context, _ Change) error {
			if reissue {
				if err := a.destroy(ctx, service); err != nil {
					return err
				}
			}
			wrapped, err := a.wrapped(ctx, service)
			if err != nil {
				return err
			}
			return a.write(name, wrapped)
		},
	}
}

// wrappingState does not replace a token that is spent: who spent it is a
// question for a person.
func (a *admin) wrappingState(ctx context.Context, kept secret.Value) (Change, error) {
	_, err := a.api.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": kept.Reveal()})
	if code := status(err); code == http.StatusBadRequest || code == http.StatusForbidden {
		return Attention, nil
	}
	return Unchanged, err
}

// secretIDState is Changed if Vault does not know the SecretID: it was destroyed,
// has expired, or is another Vault's. It is, too, if two thirds of its life are over.
func (a *admin) secretIDState(ctx context.Context, service string, kept secret.Value) (Change, error) {
	answer, err := a.api.Logical().WriteWithContext(ctx, rolePath(service)+"/secret-id/lookup", map[string]any{"secret_id": kept.Reveal()})
	if status(err) == http.StatusNotFound || err == nil && (answer == nil || len(answer.Data) == 0) {
		return Changed, nil
	}
	if err != nil {
		return Unchanged, err
	}
	text, _ := answer.Data["expiration_time"].(string)
	if ends, err := time.Parse(time.RFC3339, text); err == nil && !ends.IsZero() && time.Until(ends) < a.Roles.SecretIDTTL/3 {
		return Changed, nil
	}
	return Unchanged, nil
}

// wrapped makes a SecretID that nobody sees: what comes back can be exchanged for
// it once.
func (a *admin) wrapped(ctx context.Context, service string) (token string, err error) {
	library, err := a.api.CloneWithHeaders()
	if err != nil {
		return "", err
	}
	library.SetToken(a.api.Token())
	library.SetWrappingLookupFunc(func(string, string) string { return a.Roles.WrapTTL.String() })
	answer, err := library.Logical().WriteWithContext(ctx, rolePath(service)+"/secret-id", nil)
	if err != nil {
		return "", err
	}
	if answer == nil || answer.WrapInfo == nil {
		return "", errors.New("vault did not wrap the SecretID")
	}
	return answer.WrapInfo.Token, nil
}

// destroy takes all SecretIDs of a service, and the tokens that they got, away.
func (a *admin) destroy(ctx context.Context, service string) error {
	accessors, err := listKeys(ctx, a.api, rolePath(service)+"/secret-id")
	if err != nil {
		return err
	}
	for _, accessor := range accessors {
		body := map[string]any{"secret_id_accessor": accessor}
		if err := a.put(ctx, rolePath(service)+"/secret-id-accessor/destroy", body); err != nil {
			return err
		}
	}
	return a.revoke(ctx, service)
}

// revoke takes a service's tokens away. Vault lists tokens by accessor alone.
func (a *admin) revoke(ctx context.Context, service string) error {
	accessors, err := listKeys(ctx, a.api, "auth/token/accessors")
	if err != nil {
		return err
	}
	for _, accessor := range accessors {
		token, err := a.api.Auth().Token().LookupAccessorWithContext(ctx, accessor)
		if err != nil {
			continue // expired since it was listed
		}
		if meta, _ := token.Data["meta"].(map[string]any); meta["role_name"] != Role(service) {
			continue
		}
		if err := a.api.Auth().Token().RevokeAccessorWithContext(ctx, accessor); err != nil {
			return err
		}
	}
	return nil
}

// listKeys returns the keys below a path, none where there is nothing.
func listKeys(ctx context.Context, library *api.Client, path string) ([]string, error) {
	answer, err := library.Logical().ListWithContext(ctx, path)
	if err != nil || answer == nil {
		return nil, err
	}
	keys, _ := answer.Data["keys"].([]any)
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		if name, ok := key.(string); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

// kept is what a file of the logins holds: Made if it is to be made.
func (a *admin) kept(ctx context.Context, name string) (secret.Value, Change, error) {
	v, err := secret.Files(a.dir(name)).Lookup(ctx, name)
	if errors.Is(err, secret.ErrNotFound) {
		return v, Made, nil
	}
	return v, Unchanged, err
}

// dir is where a file of the logins is, <service>.role_id or <service>.secret_id.
func (a *admin) dir(name string) string {
	if !a.Folders {
		return a.Config.AuthDir
	}
	service, _, _ := strings.Cut(name, ".")
	return filepath.Join(a.Config.AuthDir, service)
}

func (a *admin) file(name string) string { return filepath.Join(a.dir(name), name) }

func (a *admin) write(name, text string) error {
	return renameio.WriteFile(a.file(name), []byte(text+"\n"), 0o600, renameio.WithTempDir(a.dir(name)), renameio.WithStaticPermissions(0o600))
}
