package natsserver

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

// Admin changes the users of a running server, which this or any other process
// started from our files. It connects for each call. It is safe for concurrent use,
// also by several processes.
type Admin struct {
	// Dir is the server's folder, with passwords.conf.
	Dir string
	// URL is where clients connect, CAFile what the server's certificate must chain to.
	URL, CAFile string
	// Sys answers the user Sys, or its alternate, and the password.
	Sys func(context.Context) (user, password string, err error)
}

const (
	// connectTimeout bounds a connection of Admin where the context does not.
	connectTimeout = 5 * time.Second
	connectPause   = 50 * time.Millisecond
	attempts       = 10
)

// SetPassword gives a user a password, at most 72 bytes long, and makes the server
// take it; with "" nobody can log in as the user any more. Connections of that user
// with another password are closed, all others stay; but a client that is just
// logging in may be refused and has to try again, as nats.go does.
func (a Admin) SetPassword(ctx context.Context, user, password string) error {
	if err := writePassword(a.Dir, user, password); err != nil {
		return err
	}
	if err := a.request(ctx, "RELOAD", nil, nil); err != nil {
		return fmt.Errorf("reloading nats-server.conf: %w", err)
	}
	return nil
}

// LogIn tells whether the server lets a user in.
func (a Admin) LogIn(ctx context.Context, user, password string) (bool, error) {
	nc, err := a.connect(ctx, user, password)
	if errors.Is(err, nats.ErrAuthorization) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("logging in to NATS as %s: %w", user, err)
	}
	nc.Close()
	return true, nil
}

// Sessions counts the connections that are open under a user.
func (a Admin) Sessions(ctx context.Context, user string) (int, error) {
	filter, err := json.Marshal(map[string]any{"auth": true, "user": user, "acc": AccountOf(user), "limit": 1024})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Connections int `json:"num_connections"`
	}
	if err := a.request(ctx, "CONNZ", filter, &answer); err != nil {
		return 0, fmt.Errorf("counting connections of %s: %w", user, err)
	}
	return answer.Connections, nil
}

// request asks the server and reads the data of its answer into data. Another
// rotation's reload may refuse the connection or end it before the answer: what is
// asked here may be asked twice.
func (a Admin) request(ctx context.Context, operation string, body []byte, data any) error {
	attempt := func() (struct{}, error) { return struct{}{}, a.ask(ctx, operation, body, data) }
	_, err := backoff.Retry(ctx, attempt,
		backoff.WithBackOff(backoff.NewConstantBackOff(connectPause)), backoff.WithMaxTries(attempts))
	return err
}

// ask is one attempt, on a connection of its own. What the server answers is final.
func (a Admin) ask(ctx context.Context, operation string, body []byte, data any) error {
	user, password, err := a.Sys(ctx)
	if err != nil {
		return err
	}
	nc, err := a.connect(ctx, user, password)
	if err != nil {
		return fmt.Errorf("connecting to NATS as %s: %w", user, err)
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	reply, err := nc.RequestWithContext(ctx, "$SYS.REQ.SERVER."+nc.ConnectedServerId()+"."+operation, body)
	if err != nil {
		return err
	}
	answer := struct {
		Error *struct{ Description string }
		Data  any
	}{Data: data}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return fmt.Errorf("reading the server's answer: %w", err)
	}
	if answer.Error != nil {
		return backoff.Permanent(errors.New(answer.Error.Description))
	}
	return nil
}

func (a Admin) connect(ctx context.Context, user, password string) (*nats.Conn, error) {
	pool, err := identity.CertPool(a.CAFile)
	if err != nil {
		return nil, err
	}
	timeout := connectTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = min(timeout, max(time.Until(deadline), time.Millisecond))
	}
	return nats.Connect(a.URL, nats.UserInfo(user, password), nats.NoReconnect(), nats.Timeout(timeout),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the default prints
		nats.CustomInboxPrefix(InboxPrefix(user)), nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}))
}

// Admins changes the users of all servers of a cluster, each of which must run.
type Admins []Admin

// SetPassword is Admin.SetPassword for each server.
func (a Admins) SetPassword(ctx context.Context, user, password string) error {
	for _, one := range a {
		if err := one.SetPassword(ctx, user, password); err != nil {
			return err
		}
	}
	return nil
}

// LogIn tells whether every server lets a user in.
func (a Admins) LogIn(ctx context.Context, user, password string) (ok bool, err error) {
	for _, one := range a {
		if ok, err = one.LogIn(ctx, user, password); !ok {
			break
		}
	}
	return ok, err
}

// Sessions counts the connections of a user to all servers.
func (a Admins) Sessions(ctx context.Context, user string) (sum int, err error) {
	for _, one := range a {
		n, err := one.Sessions(ctx, user)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
