package vault

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// AppRole is where the auth method is mounted.
const AppRole = "approle"

// retryRefused is how long a login that was refused is not tried again with the
// same files: Vault locks a role out after five in a quarter of an hour.
const retryRefused = 5 * time.Minute

// appRole logs in with <service>.role_id and <service>.secret_id. The second may
// hold a SecretID or a token that wraps one; what was in the wrapping is kept in
// the file, so that the service can start again. Its caller holds the turn.
type appRole struct {
	service string
	files   secret.Files
	log     *slog.Logger

	refused error             // of the last login
	with    [sha256.Size]byte // of what it was tried with
	at      time.Time
}

// Role is the name of a service's AppRole and of its policy.
func Role(service string) string { return "f2mesh-" + service }

func (a *appRole) token(ctx context.Context, client *api.Client) (*api.SecretAuth, error) {
	roleID, err := a.file(ctx, "role_id")
	if err != nil {
		return nil, err
	}
	secretID, err := a.file(ctx, "secret_id")
	if err != nil {
		return nil, err
	}
	with := sha256.Sum256([]byte(roleID.Reveal() + "\n" + secretID.Reveal()))
	if a.with == with && time.Since(a.at) < retryRefused {
		return nil, a.refused
	}
	auth, err := a.enter(ctx, client, roleID, secretID)
	if errors.Is(err, ErrLogin) {
		a.refused, a.with, a.at = err, with, time.Now()
	}
	return auth, err
}

func (a *appRole) enter(ctx context.Context, client *api.Client, roleID, secretID secret.Value) (*api.SecretAuth, error) {
	if isWrapping(secretID) {
		unwrapped, err := a.unwrap(client, secretID)
		if err != nil {
			return nil, err
		}
		secretID = unwrapped
	}
	answer, err := client.Logical().WriteWithContext(ctx, "auth/"+AppRole+"/login",
		map[string]any{"role_id": roleID.Reveal(), "secret_id": secretID.Reveal()})
	switch code := status(err); {
	case code == http.StatusBadRequest || code == http.StatusForbidden:
		return nil, fmt.Errorf("%w of %s with %s and %s: %w: the SecretID may be revoked, expired, or bound to another address; "+
			"`f2mesh vault bootstrap --reissue %s` makes a new one",
			ErrLogin, a.service, a.path("role_id"), a.path("secret_id"), explain(err), a.service)
	case err != nil:
		return nil, explain(err)
	case answer == nil || answer.Auth == nil:
		return nil, errors.New("the login response of Vault contains no token")
	}
	return answer.Auth, nil
}

func (a *appRole) file(ctx context.Context, kind string) (secret.Value, error) {
	v, err := a.files.Lookup(ctx, a.service+"."+kind)
	if !errors.Is(err, secret.ErrNotFound) {
		return v, err
	}
	// Of the login, not of the secret that it is for.
	err = fmt.Errorf("%s does not exist: `f2mesh vault bootstrap` writes it, --vault-auth-dir names its directory", a.path(kind))
	if kind == "role_id" {
		// Many shells have a VAULT_ADDR that means another Vault: until this one is
		// prepared, the next source of the chain is used, with an alarm.
		err = fmt.Errorf("%w: %w; unset VAULT_ADDR to not use Vault", secret.ErrUnavailable, err)
	}
	return v, err
}

func (a *appRole) path(kind string) string {
	return filepath.Join(string(a.files), a.service+"."+kind)
}

// isWrapping tells a token from a SecretID, which is a UUID.
func isWrapping(secretID secret.Value) bool {
	return strings.HasPrefix(secretID.Reveal(), "hvs.") || strings.HasPrefix(secretID.Reveal(), "s.")
}
