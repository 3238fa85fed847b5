package mesh

import (
	"context"
	"fmt"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// LogIn looks up whom a credential is for at present, and its password.
func LogIn(ctx context.Context, secrets secret.Source, name string) (user, password string, err error) {
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

// LogIns are the users of one kind of server that may log in now, and their
// passwords. Their alternates may not.
func LogIns(ctx context.Context, secrets secret.Source, kind credential.Kind) (map[string]string, error) {
	all := map[string]string{}
	for _, c := range credential.Of(kind) {
		user, password, err := LogIn(ctx, secrets, c.Name)
		if err != nil {
			return nil, err
		}
		all[user] = password
	}
	return all, nil
}
