package secret

import (
	"context"
	"errors"
)

// Login is the user name and password with which a service logs in to one
// server, as its Store has them now. It is safe for concurrent use.
type Login struct {
	Store    *Store
	Password string // name of the secret
	// Username names a secret that holds the user name, for sources that hold the
	// password alone; "" if there is none. User is the last resort.
	Username, User string
}

// Get returns both as of one version.
func (c Login) Get(ctx context.Context) (user, password string, err error) {
	v, err := c.Store.Get(ctx, c.Password)
	if err != nil {
		return "", "", err
	}
	if user = v.Username(""); user != "" {
		return user, v.Reveal(), nil
	}
	user, err = c.fallback(ctx)
	return user, v.Reveal(), err
}

// fallback is the user name where it does not come with the password.
func (c Login) fallback(ctx context.Context) (string, error) {
	if c.Username == "" {
		return c.User, nil
	}
	v, err := c.Store.Get(ctx, c.Username)
	if errors.Is(err, ErrNotFound) {
		return c.User, nil
	}
	return v.Reveal(), err
}

// Notify has the Store call changed after each change; see Store.Notify.
func (c Login) Notify(changed func()) {
	c.Store.Notify(c.Password, changed)
	if c.Username != "" {
		c.Store.Notify(c.Username, changed)
	}
}

// Refused tells that a server did not take what Get returned; see Store.Refused.
func (c Login) Refused() { c.Store.Refused() }
