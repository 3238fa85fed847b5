package doctor

import (
	"context"
	"errors"

	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

func vaultSecretIDs(ctx context.Context, t *Target) Finding {
	loose := inVault(ctx, t, (*vault.Client).LooseLogins)
	return verdict(loose, "all SecretIDs expire, and are valid from some networks only")
}

func vaultAudit(ctx context.Context, t *Target) Finding {
	n := inVault(ctx, t, (*vault.Client).AuditDevices)
	if n == 0 {
		return failed("Vault has no audit device")
	}
	return ok("audit devices: %d", n)
}

// inVault reads something in Vault, for which the token may not be enough.
func inVault[T any](ctx context.Context, t *Target, read func(*vault.Client, context.Context) (T, error)) T {
	need(t.Vault != nil, "no Vault is known: if the mesh has one, set VAULT_ADDR")
	value, err := read(t.Vault, ctx)
	need(!errors.Is(err, vault.ErrPermission), "this requires an administrator's token in VAULT_TOKEN: %v", err)
	ensure(err)
	return value
}
