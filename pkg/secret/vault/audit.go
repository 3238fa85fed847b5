package vault

import (
	"context"

	"github.com/hashicorp/vault/api"
)

// auditDevice is the name of the device that Bootstrap makes.
const auditDevice = "f2mesh"

// AuditDevice says where Vault records each request and answer, with secrets as hashes.
type AuditDevice struct {
	File string `help:"Audit device to enable if Vault has none: stdout, or a file on Vault's host. Vault refuses requests that it cannot record, so watch the disk. Empty: none." default:"stdout" name:"audit-file"`
}

// audit is an audit device, unless Vault has one.
func (a *admin) audit(context.Context) ([]item, error) {
	if a.Audit.File == "" {
		return nil, nil
	}
	return []item{{
		what: "audit device",
		look: func(ctx context.Context) (Change, error) {
			devices, err := a.api.Sys().ListAuditWithContext(ctx)
			return unless(len(devices) > 0), err
		},
		write: func(ctx context.Context, _ Change) error {
			return a.api.Sys().EnableAuditWithOptionsWithContext(ctx, auditDevice, &api.EnableAuditOptions{
				Type: "file", Description: "requests for the mesh's secrets", Options: map[string]string{"file_path": a.Audit.File},
			})
		},
	}}, nil
}
