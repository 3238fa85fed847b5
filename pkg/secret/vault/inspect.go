package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// LooseLogins reports services whose SecretIDs never expire or are accepted from every
// address. It needs a token that may read AppRoles.
func (c *Client) LooseLogins(ctx context.Context) (loose []string, err error) {
	err = c.do(ctx, func(library *api.Client) error {
		found := false
		for _, service := range Services {
			role, err := library.Logical().ReadWithContext(ctx, rolePath(service))
			if err != nil {
				return err
			}
			if role == nil {
				continue // of another version, or not of this mesh
			}
			found = true
			if role.Data["secret_id_ttl"] == json.Number("0") {
				loose = append(loose, "new SecretIDs of "+service+" never expire")
			}
			if everywhere(role.Data["secret_id_bound_cidrs"]) {
				loose = append(loose, "SecretIDs of "+service+" are accepted from every address")
			}
			endless, err := endless(ctx, library, service)
			if err != nil {
				return err
			}
			if endless > 0 {
				loose = append(loose, fmt.Sprintf("%d SecretIDs of %s never expire", endless, service))
			}
		}
		if !found {
			return fmt.Errorf("%w: no AppRole of the mesh", secret.ErrNotFound)
		}
		return nil
	})
	return loose, err
}

// endless counts a service's SecretIDs that have no end; they keep what they were made with.
func endless(ctx context.Context, library *api.Client, service string) (n int, err error) {
	accessors, err := listKeys(ctx, library, rolePath(service)+"/secret-id")
	if err != nil {
		return 0, err
	}
	for _, accessor := range accessors {
		one, err := library.Logical().WriteWithContext(ctx, rolePath(service)+"/secret-id-accessor/lookup", map[string]any{"secret_id_accessor": accessor})
		if status(err) == http.StatusNotFound || err == nil && one == nil {
			continue // it has ended since it was listed
		}
		if err != nil {
			return n, err
		}
		text, _ := one.Data["expiration_time"].(string)
		if ends, err := time.Parse(time.RFC3339, text); err == nil && ends.IsZero() {
			n++
		}
	}
	return n, nil
}

func everywhere(networks any) bool {
	list, _ := networks.([]any)
	return len(list) == 0 || slices.ContainsFunc(list, func(network any) bool { return network == "0.0.0.0/0" || network == "::/0" })
}

// AuditDevices counts what records Vault's requests. It takes a token that may list them.
func (c *Client) AuditDevices(ctx context.Context) (n int, err error) {
	err = c.do(ctx, func(library *api.Client) error {
		devices, err := library.Sys().ListAuditWithContext(ctx)
		n = len(devices)
		return err
	})
	return n, err
}
