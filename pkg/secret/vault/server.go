package vault

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/hashicorp/vault/api"

	"github.com/f2mesh/f2mesh/pkg/secret"
)

// FindProgram returns the path of the vault program: the one that is named, or the one on PATH.
func FindProgram(named string) (string, error) {
	if named != "" {
		path, err := exec.LookPath(named)
		if err != nil {
			return "", fmt.Errorf("looking for Vault: %w", err)
		}
		return filepath.Abs(path)
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return filepath.Abs(path)
	}
	return "", errors.New("vault is not on PATH: install it (https://developer.hashicorp.com/vault/install), " +
		"or build it with `./task vault:build`, which takes some minutes the first time")
}

// OwnServer is a Vault server for a soak or a test. It keeps its data on disk, and so can be sealed, killed
// and started again. Its caller runs the program.
type OwnServer struct {
	Dir               string // of its configuration and its data
	Address           string // host and port that it listens on, on loopback
	CertFile, KeyFile string // its certificate; "": no TLS
}

// Configure writes the server's configuration, and returns the arguments of the program.
func (s OwnServer) Configure() (args []string, err error) {
	data := filepath.Join(s.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("preparing Vault: %w", err)
	}
	scheme, tls := "http", "  tls_disable = true\n"
	if s.CertFile != "" {
		scheme, tls = "https", fmt.Sprintf("  tls_cert_file = %q\n  tls_key_file = %q\n", s.CertFile, s.KeyFile)
	}
	// Storage as in vault/config/vault.hcl: it syncs what it writes. There is no second node at the cluster's address.
	text := fmt.Sprintf("storage \"raft\" {\n  path = %q\n  node_id = \"own\"\n  performance_multiplier = 1\n}\n"+
		"listener \"tcp\" {\n  address = %q\n  cluster_address = \"127.0.0.1:0\"\n%s}\n"+
		"api_addr = %q\ncluster_addr = \"https://127.0.0.1:1\"\ndisable_mlock = true\nui = false\n",
		data, s.Address, tls, scheme+"://"+s.Address)
	path := filepath.Join(s.Dir, "server.hcl")
	// Synced: a power cut soon after must not leave an empty file.
	if err := renameio.WriteFile(path, []byte(text), 0o600, renameio.WithTempDir(s.Dir), renameio.WithStaticPermissions(0o600)); err != nil {
		return nil, fmt.Errorf("preparing Vault: %w", err)
	}
	return []string{"server", "-config=" + path}, nil
}

// Initialise makes a new Vault usable, once it has started. It returns the key that unseals the Vault, and
// the token that may do everything.
func Initialise(ctx context.Context, cfg Config) (key, root secret.Value, err error) {
	var answer *api.InitResponse
	err = cfg.operate(ctx, "initialising Vault", func(library *api.Client) (done bool, err error) {
		answer, err = library.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
		return err == nil, err
	})
	if err != nil {
		return key, root, err
	}
	return secret.NewValue(answer.Keys[0], "vault", ""), secret.NewValue(answer.RootToken, "vault", ""), nil
}

// Unseal opens a Vault that is sealed or still starts, and waits until it serves requests.
func Unseal(ctx context.Context, cfg Config, key secret.Value) error {
	return cfg.operate(ctx, "unsealing Vault", func(library *api.Client) (done bool, err error) {
		health, err := library.Sys().HealthWithContext(ctx)
		if err == nil && health.Sealed {
			_, err = library.Sys().UnsealWithContext(ctx, key.Reveal())
			return false, err
		}
		return err == nil && !health.Standby, err
	})
}

// Seal makes a Vault refuse everything until it is unsealed.
func Seal(ctx context.Context, cfg Config, root secret.Value) error {
	return cfg.operate(ctx, "sealing Vault", func(library *api.Client) (done bool, err error) {
		library.SetToken(root.Reveal())
		err = library.Sys().SealWithContext(ctx)
		return err == nil, err
	})
}

// operate repeats an operator's step until it is done, while the Vault still starts.
func (c Config) operate(ctx context.Context, what string, step func(*api.Client) (done bool, err error)) error {
	library, err := c.connect()
	if err != nil {
		return err
	}
	defer library.CloneConfig().HttpClient.CloseIdleConnections()
	library.SetClientTimeout(time.Minute) // the first start of its storage takes seconds
	for {
		done, err := step(library)
		if _, starting := errors.AsType[*url.Error](err); err != nil && !starting {
			return fmt.Errorf("%s: %w", what, explain(err))
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(ctx.Err(), explain(err)))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
