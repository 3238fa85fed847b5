package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// RotationReport is what is shown of a rotation.
type RotationReport struct {
	rotation.Rotated
	flow
}

// String is a report for people.
func (r RotationReport) String() string {
	how := "rotated"
	if r.Resumed {
		how = "completed the rotation of"
	}
	text := fmt.Sprintf("%s %s: user %s -> %s, version %s -> %s (%s), in %s\n",
		how, r.Secret, r.From, r.To, r.Old, r.New, r.Source, r.Took.Round(time.Millisecond))
	if r.In+r.Out == 0 {
		return text + "  meanwhile no message came\n"
	}
	return text + fmt.Sprintf("  meanwhile %.0f messages in, %.0f out; longest time without a commit %s\n", r.In, r.Out, r.Gap.Round(time.Millisecond))
}

// Rotator rotates the credentials of the mesh that runs on the state directory.
type Rotator struct {
	State   State
	Running Description
	Keeper  *Secrets
	Nc      *nats.Conn
	Log     *slog.Logger
	Stop    func() // of the store that nc logs in from
	// Record, if set, notes how a rotation ended.
	Record func(ctx context.Context, result rotation.Rotated, failure error) error
}

// NewRotator connects to the mesh that runs on the state directory, as the operator. Close it.
func NewRotator(ctx context.Context, st State, vault *VaultFlags, log *slog.Logger) (*Rotator, error) {
	r := &Rotator{State: st, Log: log}
	var err error
	if r.Running, err = r.State.Load(); err != nil {
		return nil, err
	}
	if r.Keeper, err = OpenSecrets(vault, r.State, log); err != nil {
		return nil, err
	}
	if err := r.Connect(ctx); err != nil {
		r.Keeper.Close()
		return nil, err
	}
	return r, nil
}

// Connect logs in as the operator, and follows when that is rotated.
func (r *Rotator) Connect(ctx context.Context) error {
	store := secret.NewStore(r.Keeper.Chain, slog.New(slog.DiscardHandler))
	store.Poll = time.Second
	own := secret.Login{Store: store, Password: fmt.Sprintf(secretNATSPasswords, natsserver.Operator), User: natsserver.Operator}
	nc, err := stream.Connect(stream.Config{URL: r.Running.NATSURL(), CAFile: r.Running.CAFile}, natsserver.Operator, own, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	running, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = store.Run(running) // ends with its context, without an error
	}()
	r.Nc, r.Stop = nc, func() { nc.Close(); end(); <-done }
	if err := r.Connected(ctx); err != nil {
		r.Stop()
		return err
	}
	return nil
}

// Connected waits for the connection, which a rotation of the operator's own
// credential has ended.
func (r *Rotator) Connected(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := stream.WaitConnected(bounded, r.Nc); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	return nil
}

// Close ends the connection.
func (r *Rotator) Close() {
	r.Stop()
	r.Keeper.Close()
}

func (r *Rotator) login(name string) func(context.Context) (string, string, error) {
	return func(ctx context.Context) (string, string, error) { return LogIn(ctx, r.Keeper, name) }
}

// Config is the rotation of one credential of the mesh.
func (r *Rotator) Config(ctx context.Context, c credential.Credential) rotation.Config {
	return rotation.Config{
		Credential: c, Server: r.Server(c), Store: r.Keeper, Services: Services{r.Nc}, Dir: r.State.Path("rotation"),
		Timeout: time.Minute, Log: r.Log,
		Done: func(step string) error {
			switch {
			case step == "store" && r.Running.Containers:
				return WriteDashboardLogin(ctx, r.Keeper, r.State.Path("grafana"))
			case step == "store":
				return r.State.WriteToolFiles(ctx, r.Keeper, r.Running)
			case step == "wait" && c.Name == SecretPgBouncer: // before the old one is locked out
				return r.poolerLogin(ctx)
			}
			return nil
		},
	}
}

// poolerLogin has the pooler, if there is one, log in with what is stored now.
func (r *Rotator) poolerLogin(ctx context.Context) error {
	if r.Running.Ports.PgBouncer == 0 {
		return nil
	}
	user, password, err := LogIn(ctx, r.Keeper, SecretPgBouncer)
	if err != nil {
		return err
	}
	console := DSN(r.Running.address(ServerPgBouncer, r.Running.Ports.PgBouncer), r.Running.CAFile, "", pgbouncer.ConsoleDatabase)
	return pgbouncer.SetLogin(ctx, r.State.Path("pgbouncer"), console, user, password)
}

// Server is what a credential is for.
func (r *Rotator) Server(c credential.Credential) rotation.LoginServer {
	switch c.Kind {
	case credential.NATS:
		var servers natsserver.Admins
		for i, url := range r.Running.natsURLs() {
			servers = append(servers, natsserver.Admin{
				Dir: r.State.Path(NATSNode(i)), URL: url, CAFile: r.Running.CAFile,
				Sys: r.login(fmt.Sprintf(secretNATSPasswords, natsserver.Sys)),
			})
		}
		return servers
	case credential.MQTT:
		at := func(port int) string { return r.Running.address(ServerMosquitto, port) }
		return mosquitto.Admin{Dir: r.State.Path("mosquitto"), Address: at(r.Running.Ports.MQTT), People: at(r.Running.Ports.People)}
	default:
		var servers postgres.Admin
		for _, s := range r.Running.Servers() {
			if slices.ContainsFunc(s.Credentials(), func(one credential.Credential) bool { return one.Name == c.Name }) {
				servers = append(servers, postgres.RoleServer{DSN: DSN(s.Address, s.caFile, "", DatabaseAny), Superuser: r.login(s.Superuser)})
			}
		}
		return servers
	}
}

// Run rotates and measures what goes through meanwhile.
func (r *Rotator) Run(ctx context.Context, cfg rotation.Config) (RotationReport, error) {
	v, err := r.Keeper.Lookup(ctx, cfg.Credential.Name)
	if err != nil {
		return RotationReport{}, err
	}
	if v.Source() == "environment" {
		return RotationReport{}, errNotReplaceable(cfg.Credential.Name, v)
	}
	if err := r.Connected(ctx); err != nil {
		return RotationReport{}, err
	}
	m, err := measure(ctx, Services{r.Nc})
	if err != nil {
		return RotationReport{}, err
	}
	result, err := rotation.Run(ctx, cfg)
	result.Secret = cfg.Credential.Name
	err = errors.Join(err, r.Connected(ctx)) // for the last figures, and the record
	if r.Record != nil {
		err = errors.Join(err, r.Record(ctx, result, err))
	}
	return RotationReport{result, m.stop(ctx)}, err
}
