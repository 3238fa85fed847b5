package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
)

// logIn looks up whom a credential is for at present, and its password.
func logIn(ctx context.Context, secrets secret.Source, name string) (user, password string, err error) {
	c, ok := credential.Find(name)
	if !ok {
		return "", "", fmt.Errorf("unknown credential %q", name)
	}
	v, err := secrets.Lookup(ctx, name)
	if err != nil {
		return "", "", err
	}
	if user = v.Username(c.User); !c.Has(user) {
		return "", "", fmt.Errorf("secret %s is for user %q; the server has %s and %s", name, user, c.User, credential.Alternate(c.User))
	}
	return user, v.Reveal(), nil
}

// logins are the users of one kind of server that may log in now, and their
// passwords. Their alternates may not.
func logins(ctx context.Context, secrets secret.Source, kind credential.Kind) (map[string]string, error) {
	all := map[string]string{}
	for _, c := range credential.Of(kind) {
		user, password, err := logIn(ctx, secrets, c.Name)
		if err != nil {
			return nil, err
		}
		all[user] = password
	}
	return all, nil
}

// tools writes what the command-line tools of people log in with, whoever the
// alternates' turn it is: the `nats` CLI's context, psql's passfile, mosquitto_sub's
// options, curl's for the health API. In arguments everybody could read a password.
func (s state) tools(ctx context.Context, secrets secret.Source, r running) error {
	content, err := natsContext(ctx, secrets, "f2mesh on "+s.dir, r)
	if err != nil {
		return err
	}
	reader, readerPassword, err := logIn(ctx, secrets, secretReader)
	if err != nil {
		return err
	}
	operator, operatorPassword, err := logIn(ctx, secrets, secretMQTTOperator)
	if err != nil {
		return err
	}
	api, err := secrets.Lookup(ctx, credential.HealthAPI)
	if err != nil {
		return err
	}
	var self account.Account
	for path, text := range map[string]string{
		s.natsContext():                    content,
		s.passfile():                       fmt.Sprintf("%s:%d:*:%s:%s\n", r.Host, r.Ports.Postgres, reader, readerPassword),
		s.operatorPassword():               operatorPassword,
		s.path("secrets", "mosquitto_sub"): fmt.Sprintf("-h %s\n-p %d\n-u %s\n-P %s\n", r.Host, r.Ports.People, operator, operatorPassword),
		s.curlConfig():                     fmt.Sprintf("user = %q\ncacert = %q\n", "f2mesh:"+api.Reveal(), r.CAFile),
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("writing %s: %w", path, err)
		}
		if err := self.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// natsContext is a context for the `nats` CLI.
func natsContext(ctx context.Context, secrets secret.Source, description string, r running) (string, error) {
	user, password, err := logIn(ctx, secrets, fmt.Sprintf(secretNATSPasswords, natsserver.Operator))
	if err != nil {
		return "", err
	}
	var content map[string]any
	if err := json.Unmarshal(natsfiles.Context, &content); err != nil {
		return "", fmt.Errorf("reading the context's template: %w", err)
	}
	content["description"] = description
	content["url"] = "tls://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.NATS))
	content["user"] = user
	content["password"] = password
	content["ca"] = r.CAFile
	content["inbox_prefix"] = natsserver.InboxPrefix(user)
	data, err := json.MarshalIndent(content, "", "  ")
	return string(data), err
}

// natsContext is what NATS_CONTEXT names: the CLI takes an absolute path.
func (s state) natsContext() string { return s.path("nats", "context.json") }

func (s state) passfile() string         { return s.path("secrets", "pgpass") }
func (s state) curlConfig() string       { return s.path("secrets", "health_curl") }
func (s state) operatorPassword() string { return s.path("secrets", "mqtt_operator") }

// refreshTools tells the command-line tools what a running mesh's secrets are now.
func (s state) refreshTools(ctx context.Context) error {
	r, err := s.load()
	if err != nil {
		return nil // no mesh runs: its start writes them
	}
	secrets, err := s.keeper(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer secrets.close()
	return s.tools(ctx, secrets, r)
}
