package doctor

import (
	"context"
	"errors"

	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

func vaultChecks() []Check {
	return []Check{
		{
			"vault-secret-ids", "Secrets: access control", "how long, and from where, the services' logins at Vault are good",
			"`f2mesh vault bootstrap --cidr NETWORK --reissue all` with an administrator's token", vaultSecretIDs,
		},
		{
			"vault-audit", "Production Hardening: Audit logging", "whether Vault records what is asked of it",
			"`f2mesh vault bootstrap` with an administrator's token makes an audit device", vaultAudit,
		},
	}
}

func vaultSecretIDs(ctx context.Context, m *Mesh) Finding {
	return m.inVault(func(c *vault.Client) Finding {
		loose, err := c.LooseLogins(ctx)
		if err != nil {
			return notLetIn(err)
		}
		return verdict(loose, "SecretIDs end, and are good from some networks alone")
	})
}

func vaultAudit(ctx context.Context, m *Mesh) Finding {
	return m.inVault(func(c *vault.Client) Finding {
		n, err := c.AuditDevices(ctx)
		switch {
		case err != nil:
			return notLetIn(err)
		case n == 0:
			return failed("Vault has no audit device")
		}
		return ok("audit devices: %d", n)
	})
}

func (m *Mesh) inVault(look func(*vault.Client) Finding) Finding {
	if m.Vault == nil {
		return notChecked("no Vault is known: if the mesh has one, name it in VAULT_ADDR")
	}
	return look(m.Vault)
}

// notLetIn is not checked where it takes another's token.
func notLetIn(err error) Finding {
	if errors.Is(err, vault.ErrPermission) {
		return notChecked("it takes an administrator's token in VAULT_TOKEN: %v", err)
	}
	return failed("cannot be tried: %v", err)
}
