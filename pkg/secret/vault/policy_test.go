package vault_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// readable is who may read what.
var readable = map[string][]string{
	"bridge":    {"mqtt_username", "mqtt_password", "nats_bridge_password"},
	"decoder":   {"postgres_password", "nats_decoder_password"},
	"writer":    {"timescale_password", "nats_writer_password"},
	"registrar": {"mqtt_registrar_password", "nats_registrar_password", "registry_password"},
	"keeper":    {"nats_keeper_password"},
	"alarm":     {"nats_alarm_password"},
	"health":    {"health_password", "nats_health_password", "nats_console_password", "postgres_reader_password", "person_ada_password"},
	"operator":  names,
}

// TestPolicies tries everything with every service's own login.
func TestPolicies(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	require.Len(t, readable, len(vault.Services))
	for service, own := range readable {
		c := m.client(t, service)
		for _, name := range names {
			v, err := c.Lookup(t.Context(), name)
			if slices.Contains(own, name) {
				require.NoError(t, err, "%s reads %s", service, name)
				require.Equal(t, "first-"+name, v.Reveal())
				continue
			}
			require.ErrorIs(t, err, vault.ErrPermission, "%s must not read %s", service, name)
			require.NotErrorIs(t, err, secret.ErrNotFound)
			require.Empty(t, v.Reveal())
		}
		_, err := c.Lookup(t.Context(), "no_such_password")
		if service == "operator" {
			require.ErrorIs(t, err, secret.ErrNotFound)
		} else {
			require.ErrorIs(t, err, vault.ErrPermission, "not even whether there is one")
		}
	}
}

func TestPoliciesWrite(t *testing.T) {
	t.Parallel()
	m := prepare(t, short)
	for service, own := range readable {
		c := m.client(t, service)
		for _, name := range names {
			version, err := c.Put(t.Context(), name, secret.NewValue("second", "", ""), 1)
			if service == "operator" {
				require.NoError(t, err)
				require.Equal(t, 2, version)
				continue
			}
			require.ErrorIs(t, err, vault.ErrPermission, "%s must not write %s", service, name)
		}
		for path, operator := range map[string]bool{
			"secret/metadata/f2mesh/" + own[0]:        true,
			"secret/data/other/thing":                 false,
			"sys/policies/acl/f2mesh-" + service:      false,
			"auth/approle/role/f2mesh-" + service:     false,
			"auth/approle/role/f2mesh-bridge/role-id": false,
			"cubbyhole/x":                     false, // of the default policy
			"sys/internal/ui/resultant-acl":   false, // of the default policy
			"secret/subkeys/f2mesh/" + own[0]: false,
			"secret/config":                   false,
		} {
			_, err := c.Read(t.Context(), path)
			if operator && service == "operator" {
				require.NoError(t, err, path)
				continue
			}
			require.Error(t, err, "%s must not read %s", service, path)
		}
		for _, path := range []string{
			"secret/delete/f2mesh/" + own[0], "secret/destroy/f2mesh/" + own[0], "secret/undelete/f2mesh/" + own[0],
			"secret/metadata/f2mesh/" + own[0], "auth/approle/role/f2mesh-" + service + "/secret-id", "auth/token/create",
			"sys/policies/acl/f2mesh-" + service,
		} {
			_, err := c.Write(t.Context(), path, map[string]any{"versions": []int{1}})
			require.ErrorIs(t, err, vault.ErrPermission, "%s must not write %s", service, path)
		}
	}
	for _, name := range names {
		v, err := administrator(t, m.Server).Lookup(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, "2", v.Version(), "%s was written by the operator alone", name)
	}
}
