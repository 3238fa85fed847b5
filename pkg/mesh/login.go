package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/account"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/server/natsserver"
)

// WriteToolFiles writes what the command-line tools of people log in with, whoever the
// alternates' turn it is: the `nats` CLI's context, psql's passfile, mosquitto_sub's
// options, curl's for the health API. In arguments everybody could read a password.
func (s State) WriteToolFiles(ctx context.Context, secrets secret.Source, r Description) error {
	content, err := natsContext(ctx, secrets, "f2mesh on "+s.Dir, r)
	if err != nil {
		return err
	}
	reader, readerPassword, err := LogIn(ctx, secrets, SecretReader)
	if err != nil {
		return err
	}
	operator, operatorPassword, err := LogIn(ctx, secrets, SecretMQTTOperator)
	if err != nil {
		return err
	}
	api, err := secrets.Lookup(ctx, credential.HealthAPI)
	if err != nil {
		return err
	}
	var self account.Account
	for path, text := range map[string]string{
		s.NATSContext():                    content,
		s.Passfile():                       fmt.Sprintf("%s:%d:*:%s:%s\n", r.Host, r.Ports.Postgres, reader, readerPassword),
		s.OperatorPassword():               operatorPassword,
		s.Path("secrets", "mosquitto_sub"): fmt.Sprintf("-h %s\n-p %d\n-u %s\n-P %s\n", r.Host, r.Ports.People, operator, operatorPassword),
		s.CurlConfig():                     fmt.Sprintf("user = %q\ncacert = %q\n", "f2mesh:"+api.Reveal(), r.CAFile),
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
func natsContext(ctx context.Context, secrets secret.Source, description string, r Description) (string, error) {
	user, password, err := LogIn(ctx, secrets, fmt.Sprintf(secretNATSPasswords, natsserver.Operator))
	if err != nil {
		return "", err
	}
	var content map[string]any
	if err := json.Unmarshal(natsfiles.Context, &content); err != nil {
		return "", fmt.Errorf("reading the context's template: %w", err)
	}
	content["description"] = description
	content["url"] = r.NATSURL()
	content["user"] = user
	content["password"] = password
	content["ca"] = r.CAFile
	content["inbox_prefix"] = natsserver.InboxPrefix(user)
	data, err := json.MarshalIndent(content, "", "  ")
	return string(data), err
}

// NATSContext is what NATS_CONTEXT names: the CLI takes an absolute path.
func (s State) NATSContext() string { return s.Path("nats", "context.json") }

// Passfile is the password file for psql.
func (s State) Passfile() string { return s.Path("secrets", "pgpass") }

// CurlConfig is the file of curl's options for the health API.
func (s State) CurlConfig() string { return s.Path("secrets", "health_curl") }

// OperatorPassword is the file of the password that people use at the MQTT broker.
func (s State) OperatorPassword() string { return s.Path("secrets", "mqtt_operator") }

// RefreshToolFiles tells the command-line tools what a running mesh's secrets are now.
func (s State) RefreshToolFiles(ctx context.Context) error {
	r, err := s.Load()
	if err != nil {
		return nil // no mesh runs: its start writes them
	}
	secrets, err := s.Secrets(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer secrets.Close()
	return s.WriteToolFiles(ctx, secrets, r)
}

// WriteDashboardLogin writes what Grafana in a container logs in with into its folder: the reader, whoever's turn it is.
// Grafana reads it at its start.
func WriteDashboardLogin(ctx context.Context, secrets secret.Source, dir string) error {
	user, password, err := LogIn(ctx, secrets, SecretReader)
	if err != nil {
		return err
	}
	var self account.Account
	for name, text := range map[string]string{"reader_user": user, "reader_password": password} {
		if err := self.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// SetUpSecret makes a secret file, or with force replaces one, and returns what it did. The
// password of the cluster's superuser in the state directory stays: only a rotation can
// tell the cluster another.
func (s State) SetUpSecret(ctx context.Context, files credential.Folder, name string, force, dryRun bool) (string, error) {
	_, err := files.Lookup(ctx, name)
	missing := errors.Is(err, secret.ErrNotFound)
	if err != nil && !missing {
		return "", err
	}
	switch {
	case !missing && !force:
		return "kept", nil
	case !missing && name == SecretSuperuser && files.Dir == s.SecretsDir() && Exists(s.Path("postgres", "data")):
		return "kept: in use", nil
	}
	does := "made"
	if !missing {
		does = "replaced"
	}
	if dryRun {
		return "would be " + does, nil
	}
	if name == credential.Username {
		return does, files.WriteText(name, "bridge")
	}
	return does, files.Make(name)
}
