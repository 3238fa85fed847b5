package vault

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// auditDevice is the name of the device that Bootstrap makes.
const auditDevice = "f2mesh"

// Audit says where Vault records each request and answer, with secrets as hashes.
type Audit struct {
	File string `help:"Audit device to enable if Vault has none: stdout, or a file on Vault's host. Vault refuses requests that it cannot record, so watch the disk. Empty: none." default:"stdout" name:"audit-file"`
}

// audit makes a device unless there is one.
func (a *admin) audit(ctx context.Context) error {
	if a.Audit.File == "" {
		return nil
	}
	devices, err := a.api.Sys().ListAuditWithContext(ctx)
	if err != nil {
		return fmt.Errorf("listing audit devices: %w", explain(err))
	}
	change := Made
	if len(devices) > 0 {
		change = Unchanged
	}
	return a.step("audit device", change, func() error {
		return a.api.Sys().EnableAuditWithOptionsWithContext(ctx, auditDevice, &api.EnableAuditOptions{
			Type: "file", Description: "what is asked of the mesh's secrets, and by whom", Options: map[string]string{"file_path": a.Audit.File},
		})
	})
}
