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

// policies are one for each service.
func (a *admin) policies(context.Context) (items []item, err error) {
	for _, service := range Services {
		text, err := a.policy(service)
		if err != nil {
			return nil, err
		}
		items = append(items, item{
			what: "policy " + Role(service),
			look: func(ctx context.Context) (Change, error) {
				now, err := a.api.Sys().GetPolicyWithContext(ctx, Role(service))
				if now != "" && now != text {
					return Changed, err
				}
				return unless(now == text), err
			},
			write: func(ctx context.Context, _ Change) error {
				return a.api.Sys().PutPolicyWithContext(ctx, Role(service), text)
			},
		})
	}
	return items, nil
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

// roles are AppRole and a role for each service.
func (a *admin) roles(context.Context) ([]item, error) {
	// Else SecretIDs end when Vault's own longest lease does, after 32 days.
	longest := a.Roles.SecretIDTTL.String()
	items := []item{{
		what: "auth method " + AppRole,
		look: func(ctx context.Context) (Change, error) {
			methods, err := a.api.Sys().ListAuthWithContext(ctx)
			now := methods[AppRole+"/"]
			if now != nil && time.Duration(now.Config.MaxLeaseTTL)*time.Second < a.Roles.SecretIDTTL {
				return Changed, err
			}
			return unless(now != nil), err
		},
		write: func(ctx context.Context, change Change) error {
			if change == Changed {
				return a.api.Sys().TuneMountAllowNilWithContext(ctx, "auth/"+AppRole, api.TuneMountConfigInput{MaxLeaseTTL: &longest})
			}
			return a.api.Sys().EnableAuthWithOptionsWithContext(ctx, AppRole, &api.EnableAuthOptions{Type: AppRole, Config: api.MountConfigInput{MaxLeaseTTL: longest}})
		},
	}}
	networks := make([]string, 0, len(a.networks))
	for _, network := range a.networks {
		// As Vault returns them: a single address has no length.
		networks = append(networks, strings.TrimSuffix(strings.TrimSuffix(network, "/32"), "/128"))
	}
	for _, service := range Services {
		items = append(items, a.object("AppRole "+Role(service), rolePath(service), map[string]any{
			"bind_secret_id":          true,
			"secret_id_num_uses":      0,
			"secret_id_ttl":           int(a.Roles.SecretIDTTL.Seconds()),
			"secret_id_bound_cidrs":   a.networks,
			"token_bound_cidrs":       networks,
			"token_policies":          []string{Role(service)},
			"token_no_default_policy": true,
			"token_ttl":               int(a.Roles.TokenTTL.Seconds()),
			"token_max_ttl":           int(a.Roles.TokenMaxTTL.Seconds()),
		}))
	}
	return items, nil
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
