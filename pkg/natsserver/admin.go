package natsserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Admin changes the users of a running server, one that this or any other process
// started from our files. It is safe for concurrent use, also by several
// processes.
type Admin struct {
	// Dir is the server's folder, with passwords.conf.
	Dir string
	// Conn is a connection of the user Sys.
	Conn *nats.Conn
}

// SetPassword gives a user a password, at most 72 bytes long, and makes the server
// take it; with "" nobody can log in as the user any more. Connections of that user
// with another password are closed, all others stay; but a client that is just
// logging in may be refused and has to try again, as nats.go does.
func (a Admin) SetPassword(ctx context.Context, user, password string) error {
	if err := writePassword(a.Dir, user, password); err != nil {
		return err
	}
	if err := a.request(ctx, "$SYS.REQ.SERVER."+a.Conn.ConnectedServerId()+".RELOAD", nil, nil); err != nil {
		return fmt.Errorf("reloading nats-server.conf: %w", err)
	}
	return nil
}

// Sessions counts the connections that are open under a user.
func (a Admin) Sessions(ctx context.Context, user string) (int, error) {
	filter, err := json.Marshal(map[string]any{"auth": true, "user": user, "acc": account(user), "limit": 1024})
	if err != nil {
		return 0, err
	}
	var answer struct {
		Connections int `json:"num_connections"`
	}
	if err := a.request(ctx, "$SYS.REQ.SERVER."+a.Conn.ConnectedServerId()+".CONNZ", filter, &answer); err != nil {
		return 0, fmt.Errorf("counting connections of %s: %w", user, err)
	}
	return answer.Connections, nil
}

func account(user string) string {
	if base(user) == Sys {
		return "SYS"
	}
	return "F2"
}

// request asks the server and reads the data of its answer into data.
func (a Admin) request(ctx context.Context, subject string, body []byte, data any) error {
	reply, err := a.Conn.RequestWithContext(ctx, subject, body)
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
		return errors.New(answer.Error.Description)
	}
	return nil
}
