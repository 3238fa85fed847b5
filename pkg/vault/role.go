package vault

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/api"

	policyfiles "github.com/f2mesh/f2mesh/vault"
)

// policies writes a policy for each service.
func (a *admin) policies(ctx context.Context) error {
	for _, service := range Services {
		text, err := a.policy(service)
		if err != nil {
			return err
		}
		now, err := a.api.Sys().GetPolicyWithContext(ctx, Role(service))
		if err != nil {
			return fmt.Errorf("looking at policy %s: %w", Role(service), explain(err))
		}
		change := Changed
		switch now {
		case text:
			change = Unchanged
		case "":
			change = Made
		}
		err = a.step("policy "+Role(service), change, func() error {
			return a.api.Sys().PutPolicyWithContext(ctx, Role(service), text)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// policy is the service's file, with the paths of this Vault's engines.
func (a *admin) policy(service string) (string, error) {
	data, err := policyfiles.Policies.ReadFile(service + ".hcl")
	if err != nil {
		return "", fmt.Errorf("reading the policy of %s: %w", service, err)
	}
	paths := []string{`path "secret/`, `path "` + a.Config.Mount + `/`}
	if a.PKI != nil {
		paths = append(paths, `path "pki/`, `path "`+a.PKI.Mount+`/`)
	}
	return strings.NewReplacer(paths...).Replace(string(data)), nil
}

// roles mounts AppRole and makes a role for each service.
func (a *admin) roles(ctx context.Context) error {
	methods, err := a.api.Sys().ListAuthWithContext(ctx)
	if err != nil {
		return fmt.Errorf("listing auth methods: %w", explain(err))
	}
	change := Made
	if now := methods[AppRole+"/"]; now != nil {
		change = Unchanged
	}
	err = a.step("auth method "+AppRole, change, func() error {
		return a.api.Sys().EnableAuthWithOptionsWithContext(ctx, AppRole, &api.EnableAuthOptions{Type: AppRole})
	})
	if err != nil {
		return err
	}
	for _, service := range Services {
		if err := a.role(ctx, service); err != nil {
			return err
		}
	}
	return nil
}

func (a *admin) role(ctx context.Context, service string) error {
	networks := make([]string, 0, len(a.Roles.CIDRs))
	for _, network := range a.Roles.CIDRs {
		// As Vault answers them: a single address has no length.
		networks = append(networks, strings.TrimSuffix(network, "/32"))
	}
	return a.object(ctx, "AppRole "+Role(service), rolePath(service), map[string]any{
		"bind_secret_id":          true,
		"secret_id_num_uses":      0,
		"secret_id_ttl":           int(a.Roles.SecretIDTTL.Seconds()),
		"secret_id_bound_cidrs":   a.Roles.CIDRs,
		"token_bound_cidrs":       networks,
		"token_policies":          []string{Role(service)},
		"token_no_default_policy": true,
		"token_ttl":               int(a.Roles.TokenTTL.Seconds()),
		"token_max_ttl":           int(a.Roles.TokenMaxTTL.Seconds()),
	})
}

func rolePath(service string) string { return "auth/" + AppRole + "/role/" + Role(service) }
