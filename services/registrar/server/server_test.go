package server

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/services/registrar/est"
	"github.com/f2mesh/f2mesh/services/registrar/watch"
)

func valid() Config {
	return Config{
		RegistryDSN: "postgres://registry", MetadataDSN: "postgres://metadata", MetadataSchema: "fleet",
		Devices: "devices", Broker: "mosquitto", Listen: ":8443", Refresh: time.Minute,
		Limits: est.Limits{SourceRate: 1, SourceBurst: 1, DeviceRate: 1, DeviceBurst: 1},
		Watch: watch.Config{
			ExpiryWarning: time.Hour, CRLWarning: time.Hour, SilentAfter: time.Minute, UnheardAfter: time.Minute, Takeovers: 3, TakeoverWindow: time.Minute,
			FailedLogins: 10, FailedWindow: time.Minute, Interval: time.Minute, MQTTURL: "tcp://127.0.0.1:1883",
		},
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := valid()
	require.NoError(t, good.Validate())
	for _, spoil := range []func(*Config){
		func(c *Config) { c.RegistryDSN = "" }, func(c *Config) { c.MetadataSchema = "" }, func(c *Config) { c.Devices = "" },
		func(c *Config) { c.Refresh = 0 }, func(c *Config) { c.Limits.SourceRate = 0 }, func(c *Config) { c.Watch.Takeovers = 0 },
	} {
		bad := valid()
		spoil(&bad)
		require.Error(t, bad.Validate())
	}
	_, err := New(good, nil, Logins{}, nil, nil, nil)
	require.ErrorContains(t, err, "est-cert", "EST needs a certificate")
}

// issuer is one that may be away.
type issuer struct {
	identity.Issuer
	away  bool
	asked int
}

func (i *issuer) Authorities(ctx context.Context) (identity.Authorities, error) {
	i.asked++
	if i.away {
		return identity.Authorities{}, errors.New("sealed")
	}
	return i.Issuer.Authorities(ctx)
}

func TestTrust(t *testing.T) {
	t.Parallel()
	authority, err := identity.OpenAuthority(filepath.Join(t.TempDir(), "pki"))
	require.NoError(t, err)
	from := &issuer{Issuer: authority, away: true}
	trusted := &trust{issuer: from, log: slog.New(slog.DiscardHandler)}
	_, err = trusted.get(t.Context())
	require.Error(t, err, "nothing is trusted that was never told")

	from.away = false
	var all []*x509.Certificate
	for range 10 {
		all, err = trusted.get(t.Context())
		require.NoError(t, err)
	}
	assert.Len(t, all, 2)
	assert.Equal(t, 2, from.asked, "it is not asked each time")

	from.away = true
	trusted.asked = trusted.asked.Add(-trustAge)
	later, err := trusted.get(t.Context())
	require.NoError(t, err)
	assert.Equal(t, all, later, "the last known hold")
	assert.Equal(t, 3, from.asked)
}
