// Package rotation replaces a credential while it is in use, without a moment in
// which none works (design 8).
//
// Of each user there are two. A rotation lets the one in that is not in use, with a
// new password; tries it; stores it where the services look; waits until each of
// them has moved; and locks the other one out. Whatever breaks it off, running it
// again goes on: where the secret is kept decides, since all that services use comes
// from there. As long as it has the old credential a rotation begins anew; once it
// has the new one that can only be completed. The journal tells the two apart.
//
// The package knows no server, no source of secrets and no service: see Server,
// Store and Services.
package rotation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// LoginServer is where a credential logs in.
type LoginServer interface {
	// SetPassword gives a user a password; with "" nobody can log in as the user any
	// more, and its sessions end. Others' sessions stay.
	SetPassword(ctx context.Context, user, password string) error
	// LogIn reports whether the server lets a user in. An error means that it could not
	// be asked, or ErrPartly.
	LogIn(ctx context.Context, user, password string) (bool, error)
}

// sessionCounter is a Server that knows who is logged in.
type sessionCounter interface {
	Sessions(ctx context.Context, user string) (int, error)
}

// SecretStore is where the secret is kept.
type SecretStore interface {
	secret.Source
	// Put replaces a secret if old is still its newest version, and answers with the
	// new version once that is safe.
	Put(ctx context.Context, name, user, password string, old secret.Value) (secret.Value, error)
}

// Instances answers what each running instance of a service says of a secret,
// nothing if none runs. An instance tells a version once it has moved to it.
type Instances interface {
	Status(ctx context.Context, service, name string) ([]secret.Status, error)
}

// Config is one rotation. All but AllowAbsent and Done are required.
type Config struct {
	Credential credential.Credential
	Server     LoginServer
	Store      SecretStore
	Services   Instances
	// Dir holds the journal, mode 700.
	Dir string
	// Timeout bounds the wait for the services.
	Timeout time.Duration
	// AllowAbsent goes on though a service that uses the secret does not run.
	AllowAbsent bool
	Log         *slog.Logger
	// Done is called after each step, by its name; an error breaks the rotation off
	// there.
	Done func(step string) error
}

// Rotated is what a rotation did.
type Rotated struct {
	Secret  string        `json:"secret"`
	Kind    string        `json:"kind"`
	From    string        `json:"from_user"`
	To      string        `json:"to_user"`
	Source  string        `json:"source"`
	Old     string        `json:"old_version"`
	New     string        `json:"new_version"`
	Resumed bool          `json:"resumed"` // an earlier run had been broken off behind "store"
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
}

// ErrPartly is returned by a Server that stands for several, of which some let the user in
// and others do not.
var ErrPartly = errors.New("some servers let the user in, others do not")

// ErrRunning means that another process rotates the same credential.
var ErrRunning = errors.New("another rotation of this credential is running")

const (
	pollInterval = 100 * time.Millisecond
	// checkTimeout is how long a service may be behind before anything is changed: it
	// may be about to poll.
	checkTimeout = 20 * time.Second
	// effectTimeout bounds the wait for a server to take a password, which some do
	// only after they have answered.
	effectTimeout = 15 * time.Second
	// settleTimeout is how long sessions of the old user are waited for once all
	// services have moved. Behind it they are somebody else's, and are ended.
	settleTimeout = 5 * time.Second
)

// rotation is one run.
type rotation struct {
	Config
	journal *journal

	current  secret.Value   // as it is stored
	seen     map[string]int // instances of each service before anything was changed
	from, to string
	password string // of to
	old      string // password of from; "" if an earlier run had it
	result   Rotated
}

// step is one of the five; each may be run again.
type step struct {
	name, does string
	run        func(context.Context) error
}

func (r *rotation) steps() []step {
	return []step{
		{"grant", fmt.Sprintf("give user %s a new password on the server", r.to), r.grant},
		{"verify", fmt.Sprintf("log in as %s", r.to), r.verify},
		{"store", fmt.Sprintf("store it: %s, over version %s", r.current.Source(), r.current.Version()), r.store},
		{"wait", r.waitText(), r.wait},
		{"retire", fmt.Sprintf("lock user %s out and see that it is refused", r.from), r.retire},
	}
}

// Run rotates the credential, or completes a rotation that was broken off.
func Run(ctx context.Context, cfg Config) (Rotated, error) {
	r, err := open(ctx, cfg)
	if err != nil {
		return Rotated{}, fmt.Errorf("rotating %s: %w", cfg.Credential.Name, err)
	}
	defer r.journal.close()
	steps := r.steps()
	if r.result.Resumed {
		steps = steps[3:] // what is stored has to be completed
		err = r.restore(ctx)
	} else {
		err = r.check(ctx)
	}
	for _, s := range steps {
		if err == nil {
			err = r.do(ctx, s)
		}
	}
	if err != nil {
		return r.result, fmt.Errorf("rotating %s: %w", cfg.Credential.Name, err)
	}
	r.result.Took = time.Since(r.result.Started)
	return r.result, r.journal.remove()
}

// Plan answers what Run would do, a line a step, and does nothing.
func Plan(ctx context.Context, cfg Config) ([]string, error) {
	r, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("planning the rotation of %s: %w", cfg.Credential.Name, err)
	}
	defer r.journal.close()
	steps := r.steps()
	if r.result.Resumed {
		steps = steps[3:]
	} else if err := r.check(ctx); err != nil {
		return nil, fmt.Errorf("planning the rotation of %s: %w", cfg.Credential.Name, err)
	}
	lines := make([]string, 0, len(steps))
	for _, s := range steps {
		lines = append(lines, s.name+": "+s.does)
	}
	return lines, nil
}

// open locks the credential and finds out where to begin.
func open(ctx context.Context, cfg Config) (*rotation, error) {
	c := cfg.Credential
	j, err := openJournal(cfg.Dir, c.Name)
	if err != nil {
		return nil, err
	}
	r := &rotation{Config: cfg, journal: j, seen: map[string]int{}}
	if err := r.begin(ctx); err != nil {
		j.close()
		return nil, err
	}
	return r, nil
}

func (r *rotation) begin(ctx context.Context) (err error) {
	c := r.Credential
	if r.current, err = r.Store.Lookup(ctx, c.Name); err != nil {
		return err
	}
	user := r.current.Username(c.User)
	if !c.Has(user) {
		return fmt.Errorf("it is for user %q; the server has %s and %s", user, c.User, c.Other(c.User))
	}
	entry := r.journal.entry
	r.from, r.to = user, c.Other(user)
	r.result = Rotated{Secret: c.Name, Kind: string(c.Kind), Source: r.current.Source(), Old: r.current.Version(), Started: time.Now()}
	if entry.To == user { // it was stored by the run that this journal is of
		r.from, r.to = r.to, user
		r.password = r.current.Reveal()
		r.result.Resumed, r.result.Old, r.result.New = true, entry.Version, r.current.Version()
	}
	r.result.From, r.result.To = r.from, r.to
	return nil
}

func (r *rotation) do(ctx context.Context, s step) error {
	r.Log.Info("rotation step", "secret", r.Credential.Name, "step", s.name, "from", r.from, "to", r.to)
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("step %s: %w", s.name, err)
	}
	if r.Done == nil {
		return nil
	}
	return r.Done(s.name)
}
