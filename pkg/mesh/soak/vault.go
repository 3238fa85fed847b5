package soak

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
	"github.com/f2mesh/f2mesh/pkg/secret/vault"
	"github.com/f2mesh/f2mesh/pkg/server/port"
)

const partVault = "vault"

// vaultPoll is how often services look for new secrets: often enough to notice that Vault is sealed.
const vaultPoll = 2 * time.Second

// ownVault is the Vault of a run: a server that is sealed after each start.
type ownVault struct {
	*child

	address   string // of the server itself, not of a link
	cfg       vault.Config
	key, root secret.Value // zero until it is initialised
}

// newVault prepares the Vault of a mesh, with its data in a directory, and starts nothing.
func newVault(program, dir string, parts *local.Parts, log *slog.Logger) (*ownVault, error) {
	number, err := port.Pick(mesh.Loopback, 0)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(mesh.Loopback, strconv.Itoa(number))
	certificate, key := parts.ServerPair()
	args, err := vault.OwnServer{Dir: dir, Address: address, CertFile: certificate, KeyFile: key}.Configure()
	if err != nil {
		return nil, err
	}
	return &ownVault{
		child:   &child{name: partVault, program: program, args: args, env: []string{"HOME=" + dir}, log: log},
		address: address,
		cfg:     vault.Config{Addr: "https://" + address, CACert: parts.Authority.CAFile(), Mount: "secret", AuthDir: parts.State.Path("vault")},
	}, nil
}

// initialised reports whether the Vault was open before.
func (v *ownVault) initialised() bool { return v.root.Reveal() != "" }

// open unseals the Vault, and initialises it before the first time.
func (v *ownVault) open(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if !v.initialised() {
		if v.key, v.root, err = vault.Initialise(ctx, v.cfg); err != nil {
			return err
		}
	}
	return vault.Unseal(ctx, v.cfg, v.key)
}

// environment is what services and the operator's commands need to use this Vault, and no other. No Vault is used
// if it is nil.
func (v *ownVault) environment(vaultOnly bool) []string {
	if v == nil {
		return []string{"VAULT_ADDR="}
	}
	env := []string{
		"VAULT_ADDR=" + v.cfg.Addr, "VAULT_CACERT=" + v.cfg.CACert, "VAULT_NAMESPACE=", "F2MESH_VAULT_MOUNT=" + v.cfg.Mount,
		"F2MESH_VAULT_AUTH_DIR=" + v.cfg.AuthDir, "F2MESH_SECRET_POLL=" + vaultPoll.String(),
	}
	if vaultOnly {
		env = append(env, "F2MESH_VAULT_ONLY="+strings.Join(credential.Names(credential.All()), ","))
	}
	return env
}
