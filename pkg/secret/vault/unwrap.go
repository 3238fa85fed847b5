package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/secret/account"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// unwrap exchanges a wrapping token, which works once, for the SecretID, and puts
// that in the token's place. It goes on when the caller's context ends: half of it
// would lose the SecretID.
func (a *appRole) unwrap(client *api.Client, wrapping secret.Value) (secret.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*requestTimeout)
	defer cancel()
	if err := a.checkWrapping(ctx, client, wrapping); err != nil {
		return secret.Value{}, err
	}
	file, err := os.CreateTemp(string(a.files), ".secret_id-*") // mode 600; before the token is spent
	if err != nil {
		return secret.Value{}, fmt.Errorf("making room for the SecretID, which replaces the wrapping token: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already once renamed
	defer func() { _ = file.Close() }()
	own, err := client.CloneWithHeaders() // the library leaves the wrapping token in the client
	if err != nil {
		return secret.Value{}, fmt.Errorf("setting up Vault's client: %w", err)
	}
	own.SetToken(wrapping.Reveal())
	answer, err := own.Logical().UnwrapWithContext(ctx, "")
	if status(err) == http.StatusBadRequest {
		return secret.Value{}, a.intercepted(err)
	}
	if err != nil {
		return secret.Value{}, explain(err)
	}
	secretID, ok := field(answer, "secret_id")
	if !ok {
		return secret.Value{}, fmt.Errorf("%w of %s: the token in %s does not wrap a SecretID", ErrLogin, a.service, a.path("secret_id"))
	}
	if err := replace(file, secretID, a.path("secret_id")); err != nil {
		return secret.Value{}, fmt.Errorf("keeping the SecretID: %w", err)
	}
	a.log.Info("secret_id unwrapped")
	return secret.NewValue(secretID, "file", ""), nil
}

// checkWrapping refuses a token that does not wrap what Vault made for this very
// role: an attacker may have taken the SecretID out and wrapped something else.
func (a *appRole) checkWrapping(ctx context.Context, client *api.Client, wrapping secret.Value) error {
	answer, err := client.Logical().WriteWithContext(ctx, "sys/wrapping/lookup", map[string]any{"token": wrapping.Reveal()})
	switch code := status(err); {
	case code == http.StatusBadRequest || code == http.StatusForbidden:
		return a.intercepted(err)
	case err != nil:
		return explain(err)
	}
	want := "auth/" + AppRole + "/role/" + Role(a.service) + "/secret-id"
	if made, _ := field(answer, "creation_path"); made != want {
		return fmt.Errorf("%w of %s: the wrapping token in %s was made by %q and not by %q, so it may have been replaced: %s",
			ErrLogin, a.service, a.path("secret_id"), made, want, a.remedy())
	}
	return nil
}

func (a *appRole) intercepted(err error) error {
	return fmt.Errorf("%w of %s: the wrapping token in %s was used already or has expired. If it had not expired and "+
		"this service has not used it, the SecretID was intercepted: %s: %w",
		ErrLogin, a.service, a.path("secret_id"), a.remedy(), explain(err))
}

func (a *appRole) remedy() string {
	return fmt.Sprintf("look for it in Vault's audit log, then destroy every SecretID of the role and make a new one with "+
		"`f2mesh vault bootstrap --reissue %s`", a.service)
}

// replace fills a temporary file and renames it to path, durably.
func replace(file *os.File, text, path string) error {
	if _, err := file.WriteString(text + "\n"); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return account.SyncPath(filepath.Dir(path))
}

func field(answer *api.Secret, name string) (text string, ok bool) {
	if answer == nil {
		return "", false
	}
	text, ok = answer.Data[name].(string)
	return text, ok && text != ""
}
