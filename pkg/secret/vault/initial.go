package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// secrets makes the secret files the first versions in KV. It never writes a
// second version: check-and-set with 0 means that there is none.
func (a *admin) secrets(ctx context.Context) error {
	if a.SecretsDir == "" {
		return nil
	}
	entries, err := os.ReadDir(a.SecretsDir)
	if err != nil {
		return fmt.Errorf("listing secret files: %w", err)
	}
	for _, entry := range entries {
		if name := entry.Name(); isSecret(name) {
			if err := a.secret(ctx, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// isSecret leaves out what else is in the folder, such as pgpass.
func isSecret(name string) bool {
	return name == "mqtt_username" || strings.HasSuffix(name, "_password")
}

func (a *admin) secret(ctx context.Context, name string) error {
	v, err := secret.Files(a.SecretsDir).Lookup(ctx, name)
	if err != nil {
		return fmt.Errorf("reading secret file %s: %w", name, err)
	}
	metadata, err := a.read(ctx, a.Config.Mount+"/metadata/"+Prefix+"/"+name)
	if err != nil {
		return fmt.Errorf("looking at secret %s: %w", name, err)
	}
	change := Made
	if metadata != nil {
		change = Unchanged
	}
	return a.step(fmt.Sprintf("secret %s/%s/%s", a.Config.Mount, Prefix, name), change, func() error {
		_, err := putKV(ctx, a.api, a.Config.Mount, name, v, 0)
		if errors.Is(explain(err), ErrConflict) {
			return nil // somebody else has just made it
		}
		return err
	})
}
