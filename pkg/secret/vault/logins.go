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

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// logins writes what each service logs in with.
func (a *admin) logins(ctx context.Context) error {
	if !a.DryRun && !a.Folders {
		if err := os.MkdirAll(a.Config.AuthDir, 0o700); err != nil {
			return fmt.Errorf("making the directory of the logins: %w", err)
		}
	}
	served := slices.DeleteFunc(slices.Clone(Services), func(service string) bool {
		_, err := os.Stat(a.dir(service))
		return a.Folders && err != nil
	})
	if len(served) == 0 {
		return fmt.Errorf("%s has no folder of a service", a.Config.AuthDir)
	}
	for _, service := range served {
		if err := a.roleID(ctx, service); err != nil {
			return err
		}
		if err := a.secretID(ctx, service); err != nil {
			return err
		}
	}
	return nil
}

func (a *admin) roleID(ctx context.Context, service string) error {
	data, err := a.read(ctx, rolePath(service)+"/role-id")
	if err != nil {
		return fmt.Errorf("reading the RoleID of %s: %w", service, err)
	}
	name := service + ".role_id"
	kept, change, err := a.kept(ctx, name)
	if err != nil {
		return err
	}
	id, _ := data["role_id"].(string)
	if change == Unchanged && kept.Reveal() != id {
		change = Changed
	}
	return a.step("file "+a.file(name), change, func() error { return a.write(name, id) })
}

// secretID writes a response-wrapped SecretID, unless the file holds a good one.
func (a *admin) secretID(ctx context.Context, service string) error {
	name := service + ".secret_id"
	kept, change, err := a.kept(ctx, name)
	if err != nil {
		return err
	}
	reissue := slices.Contains(a.Reissue, service)
	switch {
	case change == Made:
	case reissue:
		change = Changed
	case isWrapping(kept):
		change, err = a.wrappingState(ctx, kept)
	default:
		change, err = a.secretIDState(ctx, service, kept)
	}
	if err != nil {
		return fmt.Errorf("looking at the SecretID of %s: %w", service, err)
	}
	if change == Attention {
		a.Report(Step{Attention, fmt.Sprintf("file %s: its wrapping token was used or has expired; --reissue %s makes a new one", a.file(name), service)})
		return nil
	}
	return a.step("file "+a.file(name), change, func() error {
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
	})
}

// wrappingState does not replace a token that is spent: who spent it is a
// question for a person.
func (a *admin) wrappingState(ctx context.Context, kept secret.Value) (Change, error) {
	_, err := a.api.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": kept.Reveal()})
	if code := status(err); code == http.StatusBadRequest || code == http.StatusForbidden {
		return Attention, nil
	}
	return Unchanged, explain(err)
}

// secretIDState is Changed if Vault does not know the SecretID: it was destroyed,
// has expired, or is another Vault's. It is, too, if two thirds of its life are over.
func (a *admin) secretIDState(ctx context.Context, service string, kept secret.Value) (Change, error) {
	answer, err := a.api.Logical().WriteWithContext(ctx, rolePath(service)+"/secret-id/lookup", map[string]any{"secret_id": kept.Reveal()})
	if status(err) == http.StatusNotFound || err == nil && (answer == nil || len(answer.Data) == 0) {
		return Changed, nil
	}
	if err != nil {
		return Unchanged, explain(err)
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
	accessors, err := a.list(ctx, rolePath(service)+"/secret-id")
	if err != nil {
		return err
	}
	for _, accessor := range accessors {
		body := map[string]any{"secret_id_accessor": accessor}
		if _, err := a.api.Logical().WriteWithContext(ctx, rolePath(service)+"/secret-id-accessor/destroy", body); err != nil {
			return err
		}
	}
	return a.revoke(ctx, service)
}

// revoke takes a service's tokens away. Vault lists tokens by accessor alone.
func (a *admin) revoke(ctx context.Context, service string) error {
	accessors, err := a.list(ctx, "auth/token/accessors")
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

// list answers the keys below a path.
func (a *admin) list(ctx context.Context, path string) ([]string, error) {
	answer, err := a.api.Logical().ListWithContext(ctx, path)
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
	file, err := os.CreateTemp(a.dir(name), "."+name+"-*") // mode 600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already once renamed
	defer func() { _ = file.Close() }()
	return replace(file, text, a.file(name))
}
