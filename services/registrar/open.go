package registrar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// Until is the last day of a certificate, in local time.
func Until(d *Device) string { return d.NotAfter.Local().Format("2006-01-02") }

// PreviewRevocation prints what Revoke would do.
func (r *Core) PreviewRevocation(ctx context.Context, macs []topic.MAC) error {
	for _, mac := range macs {
		d, err := r.Show(ctx, mac)
		if err != nil {
			return err
		}
		would := "would be revoked"
		if d.Status == Revoked {
			would = "is revoked already"
		}
		fmt.Printf("%s, serial number %s, certificate %s, %s\n", d.MAC.Dashed(), d.SerialNumber, d.Certificate, would)
	}
	return nil
}

// Core is the registrar's core for a command, or for the start of a mesh, and
// the pool that it works with.
type Core struct {
	*Registrar
	Pool   *database.Pool
	Issuer identity.Issuer
}

// Close ends the connections to PostgreSQL.
func (r *Core) Close() { r.Pool.Close() }

// Open opens the registry of the mesh on the state directory. Nothing is
// asked of PostgreSQL yet.
func Open(ctx context.Context, st mesh.State, dsn string, issuer identity.Issuer, secrets secret.Source, log *slog.Logger) (*Core, error) {
	servers, err := identity.OpenAuthority(st.Path("pki"))
	if err != nil {
		return nil, err
	}
	gate, err := mosquitto.OpenGate(st.Path("mosquitto"))
	if err != nil {
		return nil, err
	}
	store := secret.NewStore(secret.Chain{secrets}, slog.New(slog.DiscardHandler))
	pool, err := database.Open(ctx, dsn,
		secret.Login{Store: store, Password: mesh.SecretRegistry})
	if err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	core, err := New(Config{
		Devices: st.DevicesDir(), Pool: pool.Pool, Issuer: issuer, ServerCAs: servers.CAFile(), Gate: gate, Log: log,
		Credential: secret.Login{Store: store, Password: mesh.SecretMQTTRegistrar, User: "registrar"}.Get,
	})
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Core{core, pool, issuer}, nil
}

// Admit registers the controllers that are not registered yet, and brings the
// broker's lists to what the registry says. A revoked controller stays revoked.
func (r *Core) Admit(ctx context.Context, origin Origin, controllers []fleet.Controller) error {
	requests := make([]Request, len(controllers))
	for i, c := range controllers {
		requests[i] = Request{MAC: c.MAC, SerialNumber: c.SerialNumber}
	}
	results, err := r.Register(ctx, origin, requests...)
	if err != nil {
		return err
	}
	for i, result := range results {
		if result.Err != nil && !errors.Is(result.Err, ErrRevoked) {
			return fmt.Errorf("registering %s: %w", requests[i].MAC.Dashed(), result.Err)
		}
	}
	return nil
}

// Due are the controllers whose certificate should be renewed and can be here.
func (r *Core) Due(ctx context.Context) ([]topic.MAC, error) {
	devices, err := r.List(ctx)
	var macs []topic.MAC
	for i := range devices {
		if d := &devices[i]; d.Status == Active && !d.OwnKey && d.Due(time.Now()) {
			macs = append(macs, d.MAC)
		}
	}
	return macs, err
}

// Person is who runs a command, for the audit trail.
func Person() Origin {
	return Origin{Actor: access.Caller()}
}
