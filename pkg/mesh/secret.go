package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
)

// Secrets is where a mesh's secrets are kept, with the operator's rights: what the
// servers are set up from, what our own commands log in with, and what a rotation
// replaces. It seeks as a service does (design 8).
type Secrets struct {
	secret.Chain
	files     credential.Folder
	vaultOnly []string
	Vault     *vault.Client // nil: none
	// last is set for commands that only log in: they go on with what stands below
	// Vault while that cannot be asked, and say so. A device must be revocable also
	// during an outage; what changes credentials must not take an old one for the new.
	last *secret.Store
	// Downgrade is for a mesh that starts. It must start, as its services do, while Vault
	// cannot be asked: each look-up then goes on with what stands below Vault, and says so.
	Downgrade bool
	log       *slog.Logger
}

// Lookup is the chain's, or what it gave last.
func (k *Secrets) Lookup(ctx context.Context, name string) (secret.Value, error) {
	from := k.last
	switch {
	case from != nil:
	case k.Downgrade:
		from = secret.NewStore(k.Chain, slog.New(slog.DiscardHandler)) // each look-up asks Vault
	default:
		return k.Chain.Lookup(ctx, name)
	}
	v, err := from.Get(ctx, name)
	for _, s := range from.Status() {
		if err == nil && s.Name == name && s.Downgraded {
			k.log.Warn("Vault cannot be asked: a secret is taken from below it", "secret", name, "source", s.Source, "error", s.Problem)
		}
	}
	return v, err
}

// OpenSecrets logs in to Vault as the operator, or with the token in VAULT_TOKEN.
func OpenSecrets(f *VaultFlags, st State, log *slog.Logger) (*Secrets, error) {
	k := &Secrets{files: st.SecretFiles(), vaultOnly: f.VaultOnly, log: log}
	k.Chain = secret.Chain{secret.VaultOnly(f.VaultOnly), st.SecretFiles(), secret.Environment("F2MESH_")}
	if f.Addr == "" {
		return k, nil
	}
	var err error
	token := os.Getenv("VAULT_TOKEN")
	switch {
	case token != "":
		k.Vault, err = vault.OpenToken(f.Config, secret.NewValue(token, "environment", ""), log)
	case !f.HasLogins():
		// A shell's VAULT_ADDR alone does not put the mesh's secrets into that Vault.
		log.Warn("Vault has no login for this mesh: secrets are taken from below it", "vault_addr", f.Addr,
			"fix", "prepare it with `f2mesh vault bootstrap`, or unset VAULT_ADDR")
		return k, nil
	default:
		k.Vault, err = vault.Open(f.Config, "operator", log)
	}
	if err != nil {
		return nil, err
	}
	k.Chain = append(secret.Chain{k.Vault}, k.Chain...)
	return k, nil
}

// Secrets is that of a command which only logs in, and has no flags of its own for
// Vault: that is taken as the environment names it.
func (s State) Secrets(log *slog.Logger) (*Secrets, error) {
	f, err := s.VaultFlags()
	if err != nil {
		return nil, err
	}
	k, err := OpenSecrets(&f, s, log)
	if err != nil {
		return nil, err
	}
	k.last = secret.NewStore(k.Chain, slog.New(slog.DiscardHandler))
	return k, nil
}

// Close ends idle connections.
func (k *Secrets) Close() {
	if k.Vault != nil {
		k.Vault.Close()
	}
}

// Ensure makes the secrets that are nowhere, as files.
func (k *Secrets) Ensure(ctx context.Context) error {
	for _, name := range append(credential.Names(credential.All()), credential.HealthAPI) {
		_, err := k.Lookup(ctx, name)
		if errors.Is(err, secret.ErrNotFound) {
			err = k.files.Make(name)
		}
		if err != nil {
			return err
		}
	}
	return k.files.WriteText(credential.Username, "bridge")
}

// Put makes Secrets a rotation.Store: it replaces a secret where it is.
func (k *Secrets) Put(ctx context.Context, name, user, password string, old secret.Value) (secret.Value, error) {
	switch old.Source() {
	case "vault":
		version, err := strconv.Atoi(old.Version())
		if err != nil {
			return secret.Value{}, fmt.Errorf("reading the version of secret %s: %w", name, err)
		}
		if _, err := k.Vault.Put(ctx, name, secret.NewValue(password, "", "").WithUsername(user), version); err != nil {
			return secret.Value{}, fmt.Errorf("storing secret %s in Vault: %w", name, err)
		}
		// A service that starts while Vault is sealed takes the file. One that was removed stays so.
		if _, err := k.files.Lookup(ctx, name); !errors.Is(err, secret.ErrNotFound) && !slices.Contains(k.vaultOnly, name) {
			if err := k.files.Put(name, user, password); err != nil {
				return secret.Value{}, err
			}
		}
	case "file":
		if now, err := k.Lookup(ctx, name); err != nil || now.Version() != old.Version() {
			return secret.Value{}, errors.Join(err, fmt.Errorf("secret %s was changed meanwhile", name))
		}
		if err := k.files.Put(name, user, password); err != nil {
			return secret.Value{}, err
		}
	default:
		return secret.Value{}, errNotReplaceable(name, old)
	}
	return k.Lookup(ctx, name)
}

func errNotReplaceable(name string, v secret.Value) error {
	return fmt.Errorf("secret %s comes from source %q, which f2mesh cannot change: move it to a secret file or to Vault", name, v.Source())
}

// LogIn is that of one credential, for packages that do not know Secrets, or that of the
// health API.
func (k *Secrets) LogIn(ctx context.Context, name string) (user, password string, err error) {
	if name == credential.HealthAPI {
		v, err := k.Lookup(ctx, name)
		return "f2mesh", v.Reveal(), err // any user
	}
	return LogIn(ctx, k, name)
}
