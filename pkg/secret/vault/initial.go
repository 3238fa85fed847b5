package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// secrets are the secret files as first versions in KV. A second version is never
// written: check-and-set with 0 means that there is none.
func (a *admin) secrets(context.Context) (items []item, err error) {
	if a.SecretsDir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(a.SecretsDir)
	if err != nil {
		return nil, fmt.Errorf("listing secret files: %w", err)
	}
	for _, entry := range entries {
		// Not what else is in the folder, such as pgpass.
		if name := entry.Name(); name == "mqtt_username" || strings.HasSuffix(name, "_password") {
			items = append(items, a.secret(name))
		}
	}
	return items, nil
}

func (a *admin) secret(name string) item {
	var v secret.Value
	return item{
		what: fmt.Sprintf("secret %s/%s/%s", a.Config.Mount, Prefix, name),
		look: func(ctx context.Context) (Change, error) {
			var err error
			if v, err = secret.Files(a.SecretsDir).Lookup(ctx, name); err != nil {
				return "", err
			}
			metadata, err := a.read(ctx, a.Config.Mount+"/metadata/"+Prefix+"/"+name)
			return unless(metadata != nil), err
		},
		write: func(ctx context.Context, _ Change) error {
			_, err := putKV(ctx, a.api, a.Config.Mount, name, v, 0)
			if errors.Is(explain(err), ErrConflict) {
				return nil // somebody else has just made it
			}
			return err
		},
	}
}
