package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/rotation"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
	"github.com/f2mesh/f2mesh/pkg/server/pgbouncer"
	"github.com/f2mesh/f2mesh/pkg/server/postgres"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/registrar"
)

type secretRotateCommand struct {
	vaultFlags
	Names       []string      `arg:"" optional:"" name:"name" help:"Names of secrets, such as timescale_password."`
	All         bool          `help:"Rotate all credentials, one after the other."`
	DryRun      bool          `help:"Show the steps without running them."`
	Timeout     time.Duration `help:"Maximum time for the services to switch to the new credential." default:"1m"`
	AllowAbsent bool          `help:"Continue even if a service that uses the secret is not running."`
	JSON        bool          `help:"Print reports as JSON, one per line."`
}

// rotationReport is what is shown of a rotation.
type rotationReport struct {
	rotation.Result
	flow
}

// Run rotates the credentials in turn, and stops at the first that fails.
func (c *secretRotateCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	credentials, err := c.chosen()
	if err != nil {
		return err
	}
	r, err := newRotator(ctx, g, &c.vaultFlags, log)
	if err != nil {
		return err
	}
	defer r.close()
	for _, one := range credentials {
		if err := c.rotate(ctx, r, one); err != nil {
			return err
		}
	}
	return nil
}

func (c *secretRotateCommand) chosen() ([]credential.Credential, error) {
	if c.All != (len(c.Names) == 0) {
		return nil, errors.New("name the secrets to rotate, or --all")
	}
	if c.All {
		return credential.All(), nil
	}
	var chosen []credential.Credential
	for _, name := range c.Names {
		one, ok := credential.Find(name)
		if !ok {
			return nil, fmt.Errorf("unknown credential %q; known: %s", name, strings.Join(credentialNames(), ", "))
		}
		chosen = append(chosen, one)
	}
	return chosen, nil
}

func credentialNames() []string {
	var all []string
	for _, c := range credential.All() {
		all = append(all, c.Name)
	}
	return all
}

func (c *secretRotateCommand) rotate(ctx context.Context, r *rotator, one credential.Credential) error {
	cfg := r.config(ctx, one)
	cfg.Timeout, cfg.AllowAbsent = c.Timeout, c.AllowAbsent
	if c.DryRun {
		steps, err := rotation.Plan(ctx, cfg)
		if err != nil {
			return err
		}
		fmt.Printf("%s would\n  %s\n", one.Name, strings.Join(steps, "\n  "))
		return nil
	}
	report, err := r.run(ctx, cfg)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(os.Stdout).Encode(report)
	}
	fmt.Print(report)
	return nil
}

// String is a report for people.
func (r rotationReport) String() string {
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

// rotator rotates the credentials of the mesh that runs on the state directory.
type rotator struct {
	state   state
	running running
	keeper  *keeper
	nc      *nats.Conn
	log     *slog.Logger
	stop    func() // of the store that nc logs in from
}

func newRotator(ctx context.Context, g *globals, vault *vaultFlags, log *slog.Logger) (*rotator, error) {
	r := &rotator{state: state{dir: g.StateDir}, log: log}
	var err error
	if r.running, err = r.state.load(); err != nil {
		return nil, err
	}
	if r.keeper, err = newKeeper(vault, r.state, log); err != nil {
		return nil, err
	}
	if err := r.connect(ctx); err != nil {
		r.keeper.close()
		return nil, err
	}
	return r, nil
}

// connect logs in as the operator, and follows when that is rotated.
func (r *rotator) connect(ctx context.Context) error {
	store := secret.NewStore(r.keeper.Chain, slog.New(slog.DiscardHandler))
	store.Poll = time.Second
	own := secret.Credential{Store: store, Password: fmt.Sprintf(secretNATSPasswords, natsserver.Operator), User: natsserver.Operator}
	nc, err := stream.Connect(stream.Config{URL: r.natsURL(), CAFile: r.running.CAFile}, natsserver.Operator, own, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	running, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = store.Run(running) // ends with its context, without an error
	}()
	r.nc, r.stop = nc, func() { nc.Close(); end(); <-done }
	if err := r.connected(ctx); err != nil {
		r.stop()
		return err
	}
	return nil
}

// connected waits for the connection, which a rotation of the operator's own
// credential has ended.
func (r *rotator) connected(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := stream.WaitConnected(bounded, r.nc); err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	return nil
}

func (r *rotator) close() {
	r.stop()
	r.keeper.close()
}

func (r *rotator) natsURL() string {
	return "tls://" + net.JoinHostPort(r.running.Host, strconv.Itoa(r.running.Ports.NATS))
}

func (r *rotator) login(name string) func(context.Context) (string, string, error) {
	return func(ctx context.Context) (string, string, error) { return logIn(ctx, r.keeper, name) }
}

func (r *rotator) config(ctx context.Context, c credential.Credential) rotation.Config {
	return rotation.Config{
		Credential: c, Server: r.server(c.Kind), Store: r.keeper, Services: answers{r.nc}, Dir: r.state.path("rotation"),
		Timeout: time.Minute, Log: r.log,
		Done: func(step string) error {
			switch {
			case step == "store":
				return r.state.tools(ctx, r.keeper, r.running)
			case step == "wait" && c.Name == secretPgBouncer: // before the old one is locked out
				return r.poolerLogin(ctx)
			}
			return nil
		},
	}
}

// poolerLogin has the pooler, if there is one, log in with what is stored now.
func (r *rotator) poolerLogin(ctx context.Context) error {
	if r.running.Ports.PgBouncer == 0 {
		return nil
	}
	user, password, err := logIn(ctx, r.keeper, secretPgBouncer)
	if err != nil {
		return err
	}
	console := localDSN(r.running.Host, r.running.Ports.PgBouncer, r.running.CAFile, "", pgbouncer.Console)
	return pgbouncer.SetLogin(ctx, r.state.path("pgbouncer"), console, user, password)
}

// server is what a kind of credential is for.
func (r *rotator) server(kind credential.Kind) rotation.Server {
	switch kind {
	case credential.NATS:
		return natsserver.Admin{
			Dir: r.state.path("nats"), URL: r.natsURL(), CAFile: r.running.CAFile,
			Sys: r.login(fmt.Sprintf(secretNATSPasswords, natsserver.Sys)),
		}
	case credential.MQTT:
		at := func(port int) string { return net.JoinHostPort(r.running.Host, strconv.Itoa(port)) }
		return mosquitto.Admin{Dir: r.state.path("mosquitto"), Address: at(r.running.Ports.MQTT), People: at(r.running.Ports.People)}
	default:
		return postgres.Admin{{
			DSN:       localDSN(r.running.Host, r.running.Ports.Postgres, r.running.CAFile, "", databaseAny),
			Superuser: r.login(secretSuperuser),
		}}
	}
}

// run rotates and measures what goes through meanwhile.
func (r *rotator) run(ctx context.Context, cfg rotation.Config) (rotationReport, error) {
	v, err := r.keeper.Lookup(ctx, cfg.Credential.Name)
	if err != nil {
		return rotationReport{}, err
	}
	if v.Source() == "environment" {
		return rotationReport{}, errNotReplaceable(cfg.Credential.Name, v)
	}
	if err := r.connected(ctx); err != nil {
		return rotationReport{}, err
	}
	m, err := measure(ctx, answers{r.nc})
	if err != nil {
		return rotationReport{}, err
	}
	result, err := rotation.Run(ctx, cfg)
	err = errors.Join(err, r.connected(ctx), r.record(ctx, cfg.Credential.Name, result, err)) // and for the last figures
	return rotationReport{result, m.stop(ctx)}, err
}

// record puts the rotation on the audit trail, without the secret. The registrar
// copies it to its table.
func (r *rotator) record(ctx context.Context, name string, result rotation.Result, failure error) error {
	detail := fmt.Sprintf("%s: user %s, version %s (%s)", name, result.To, result.New, result.Source)
	if failure != nil {
		detail = name + ": not completed"
	}
	m, err := registrar.AuditMessage(registrar.Event{Time: time.Now().UTC(), Actor: "operator", Action: registrar.RotateSecret, Detail: detail})
	if err != nil {
		return err
	}
	streams, err := stream.NewClient(r.nc, natsfiles.Files, r.log)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := streams.Ensure(bounded, registrar.AuditStream); err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	if _, err := streams.Store(bounded, registrar.AuditStream, []*nats.Msg{m}); err != nil {
		return fmt.Errorf("recording in the audit trail: %w", err)
	}
	return nil
}
