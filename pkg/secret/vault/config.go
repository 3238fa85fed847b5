package vault

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"
)

// Prefix is the folder of the mesh's secrets in the KV engine.
const Prefix = "f2mesh"

// Config says where Vault is and how a service logs in.
type Config struct {
	Addr      string `help:"URL of Vault. Empty: Vault is not used." name:"vault-addr" env:"VAULT_ADDR" default:""`
	CACert    string `help:"CA certificates to verify Vault with (PEM). Default: the system's." name:"vault-cacert" env:"VAULT_CACERT"`
	Namespace string `help:"Vault Enterprise namespace." name:"vault-namespace" env:"VAULT_NAMESPACE" default:""`
	Mount     string `help:"KV version 2 engine. Secrets are stored under f2mesh/." name:"vault-mount" env:"F2MESH_VAULT_MOUNT" default:"secret"`
	AuthDir   string `help:"Directory of <service>.role_id and <service>.secret_id, the AppRole credentials of a service." name:"vault-auth-dir" env:"F2MESH_VAULT_AUTH_DIR" default:".f2mesh/vault" type:"path"`
}

// HasLogins reports whether somebody has prepared logins for a mesh, in one folder or
// in a folder for each service.
func (c Config) HasLogins() bool {
	for _, pattern := range []string{"*.role_id", "*/*.role_id"} {
		if found, err := filepath.Glob(filepath.Join(c.AuthDir, pattern)); err != nil || len(found) > 0 {
			return true
		}
	}
	return false
}

// requestTimeout bounds one request to Vault.
const requestTimeout = 5 * time.Second

// connect makes a client of the library, without a token.
func (c Config) connect() (*api.Client, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	cfg := api.DefaultConfig() // reads the environment too, for the rarer variables
	if cfg.Error != nil {
		return nil, fmt.Errorf("reading Vault's environment variables: %w", cfg.Error)
	}
	cfg.Address, cfg.AgentAddress = c.Addr, ""      // what check has seen, and nothing else
	cfg.Timeout, cfg.MaxRetries = requestTimeout, 0 // the caller that polls tries again
	if c.CACert != "" {
		if err := cfg.ConfigureTLS(&api.TLSConfig{CACert: c.CACert}); err != nil {
			return nil, fmt.Errorf("reading %s for Vault: %w", c.CACert, err)
		}
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("setting up Vault's client: %w", err)
	}
	client.ClearToken()
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	return client, nil
}

// check refuses what would show credentials to others.
func (c Config) check() error {
	u, err := url.Parse(c.Addr)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("VAULT_ADDR %q is not a URL such as https://vault.example.org:8200", c.Addr)
	}
	if u.User != nil {
		return errors.New("VAULT_ADDR contains a user name or password: remove it, Vault does not use it")
	}
	if skip, _ := strconv.ParseBool(os.Getenv(api.EnvVaultSkipVerify)); skip {
		return errors.New("VAULT_SKIP_VERIFY is set: unset it, and name Vault's CA in VAULT_CACERT instead")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && !ip.IsLoopback() {
		return fmt.Errorf("VAULT_ADDR %s would send secrets unencrypted: use https, and VAULT_CACERT for a CA of your own", c.Addr)
	}
	return nil
}
