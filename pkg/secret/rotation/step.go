package rotation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// check looks, before anything is changed, whether the rotation can come to its
// end: the server answers, and those who use the secret look where it is stored.
func (r *rotation) check(ctx context.Context) error {
	in, err := r.Server.LogIn(ctx, r.from, r.current.Reveal())
	if err != nil && !errors.Is(err, ErrPartly) {
		return err
	}
	if !in { // put there by hand; the rotation is the remedy
		r.Log.Warn("the server refuses the credential that is stored now", "secret", r.Credential.Name, "user", r.from)
	}
	bounded, cancel := context.WithTimeout(ctx, min(checkTimeout, r.Timeout))
	defer cancel()
	if err := r.await(bounded, r.from); err != nil {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return nil
}

// grant lets the alternate in with a new password. An earlier run may have done so
// with another, which nobody knows any more.
func (r *rotation) grant(ctx context.Context) error {
	r.password = credential.Generate()
	return r.Server.SetPassword(ctx, r.to, r.password)
}

func (r *rotation) verify(ctx context.Context) error { return r.see(ctx, r.to, r.password, true) }

// store is the step of no return: the journal is written before.
func (r *rotation) store(ctx context.Context) error {
	entry := entry{Secret: r.Credential.Name, From: r.from, To: r.to, Version: r.current.Version(), Started: r.result.Started}
	if err := r.journal.save(entry); err != nil {
		return err
	}
	r.old = r.current.Reveal()
	var err error
	if r.current, err = r.Store.Put(ctx, r.Credential.Name, r.to, r.password, r.current); err != nil {
		return err
	}
	r.result.New = r.current.Version()
	return nil
}

// restore makes sure that what is stored works, before a rotation that was broken
// off goes on: the server may have been started anew meanwhile.
func (r *rotation) restore(ctx context.Context) error {
	in, err := r.Server.LogIn(ctx, r.to, r.password)
	if in || err != nil && !errors.Is(err, ErrPartly) {
		return err
	}
	if err := r.Server.SetPassword(ctx, r.to, r.password); err != nil {
		return err
	}
	return r.verify(ctx)
}

func (r *rotation) waitText() string {
	if len(r.Credential.Services) == 0 {
		return "wait for nobody, no service uses it"
	}
	return "wait until it is in use by " + strings.Join(r.Credential.Services, ", ")
}

// wait returns once every instance of every service has moved to what is stored.
func (r *rotation) wait(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	if err := r.await(bounded, r.to); err != nil {
		return fmt.Errorf("%w; both credentials work: run the same command again to go on", err)
	}
	r.settle(ctx)
	return nil
}

// await returns once all services use the version that is stored, which is user's.
func (r *rotation) await(ctx context.Context, user string) error {
	for _, service := range r.Credential.Services {
		for {
			problem, err := r.look(ctx, service)
			if problem == "" {
				break
			}
			if !pause(ctx) {
				return errors.Join(fmt.Errorf("waiting for %s to be in use: %s", user, problem), err)
			}
		}
	}
	return nil
}

// settle waits for the last sessions of the old user to end by themselves.
func (r *rotation) settle(ctx context.Context) {
	counter, ok := r.Server.(sessionCounter)
	if !ok || len(r.Credential.Services) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		open, err := counter.Sessions(ctx, r.from)
		if err == nil && open == 0 {
			return
		}
		if !pause(ctx) {
			r.Log.Warn("sessions that no service reports are ended", "user", r.from, "sessions", open)
			return
		}
	}
}

// look answers what keeps a service from using what is stored, "" if nothing does.
func (r *rotation) look(ctx context.Context, service string) (problem string, err error) {
	all, err := r.Services.Status(ctx, service, r.Credential.Name)
	if err != nil {
		return service + " does not answer", err
	}
	if len(all) == 0 && !r.AllowAbsent {
		return service + " does not run, or does not use the secret; --allow-absent goes on without it", nil
	}
	if len(all) < r.seen[service] { // it may be on its way
		return fmt.Sprintf("only %d of %d instances of %s answer", len(all), r.seen[service], service), nil
	}
	r.seen[service] = len(all)
	for _, s := range all {
		switch {
		case s.Source != r.current.Source():
			return fmt.Sprintf("%s has it from %q, not from %q", service, s.Source, r.current.Source()), nil
		case s.Downgraded:
			return fmt.Sprintf("%s keeps its last good value: %s", service, s.Problem), nil
		case s.Version != r.current.Version():
			return fmt.Sprintf("%s uses version %s, not %s", service, s.Version, r.current.Version()), nil
		}
	}
	return "", nil
}

// retire locks the old user out, and checks that the server refuses its password. After
// an interruption nobody knows that password: it is replaced first, for a server that
// refuses a random password proves nothing.
func (r *rotation) retire(ctx context.Context) error {
	if r.old == "" {
		r.old = credential.Generate()
		if err := r.Server.SetPassword(ctx, r.from, r.old); err != nil {
			return err
		}
		if err := r.see(ctx, r.from, r.old, true); err != nil {
			return err
		}
	}
	if err := r.Server.SetPassword(ctx, r.from, ""); err != nil {
		return err
	}
	if err := r.see(ctx, r.from, r.old, false); err != nil {
		return err
	}
	return r.see(ctx, r.to, r.password, true)
}

// see returns once the server lets a user in, or does not.
func (r *rotation) see(ctx context.Context, user, password string, want bool) error {
	ctx, cancel := context.WithTimeout(ctx, effectTimeout)
	defer cancel()
	for {
		in, err := r.Server.LogIn(ctx, user, password)
		if err == nil && in == want {
			return nil
		}
		if !pause(ctx) {
			if err == nil && want {
				err = fmt.Errorf("the server refuses user %s", user)
			} else if err == nil {
				err = fmt.Errorf("the server still lets user %s in", user)
			}
			return err
		}
	}
}

// pause answers false if ctx ended.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pollInterval):
		return true
	}
}
