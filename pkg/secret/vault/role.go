package vault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

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
	// Else SecretIDs end when Vault's own longest lease does, after 32 days.
	longest := a.Roles.SecretIDTTL.String()
	change := Made
	if now := methods[AppRole+"/"]; now != nil {
		change = Unchanged
		if time.Duration(now.Config.MaxLeaseTTL)*time.Second < a.Roles.SecretIDTTL {
			change = Changed
		}
	}
	err = a.step("auth method "+AppRole, change, func() error {
		if change == Changed {
			return a.api.Sys().TuneMountAllowNilWithContext(ctx, "auth/"+AppRole, api.TuneMountConfigInput{MaxLeaseTTL: &longest})
		}
		return a.api.Sys().EnableAuthWithOptionsWithContext(ctx, AppRole, &api.EnableAuthOptions{Type: AppRole, Config: api.MountConfigInput{MaxLeaseTTL: longest}})
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
	networks := make([]string, 0, len(a.networks))
	for _, network := range a.networks {
		// As Vault answers them: a single address has no length.
		networks = append(networks, strings.TrimSuffix(strings.TrimSuffix(network, "/32"), "/128"))
	}
	return a.object(ctx, "AppRole "+Role(service), rolePath(service), map[string]any{
		"bind_secret_id":          true,
		"secret_id_num_uses":      0,
		"secret_id_ttl":           int(a.Roles.SecretIDTTL.Seconds()),
		"secret_id_bound_cidrs":   a.networks,
		"token_bound_cidrs":       networks,
		"token_policies":          []string{Role(service)},
		"token_no_default_policy": true,
		"token_ttl":               int(a.Roles.TokenTTL.Seconds()),
		"token_max_ttl":           int(a.Roles.TokenMaxTTL.Seconds()),
	})
}

// networks are those that services may log in from: a SecretID that was stolen is of no
// use elsewhere.
func (b *Bootstrap) networks() ([]string, error) {
	if len(b.Roles.CIDRs) > 0 {
		return b.Roles.CIDRs, nil
	}
	if address, err := url.Parse(b.Config.Addr); err == nil && (address.Hostname() == "localhost" || net.ParseIP(address.Hostname()).IsLoopback()) {
		return []string{"127.0.0.0/8", "::1/128"}, nil
	}
	return nil, errors.New("--cidr is missing: name the networks that services log in to Vault from, such as 10.1.0.0/16")
}

func rolePath(service string) string { return "auth/" + AppRole + "/role/" + Role(service) }
