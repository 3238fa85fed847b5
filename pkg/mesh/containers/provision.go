package containers

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/database"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Provision is the command that makes streams, roles, databases and tables on the containers' servers.
type Provision struct {
	CAFile     string `help:"CA certificates to verify the servers with (PEM)." env:"F2MESH_CA" default:"/etc/f2mesh/ca.crt" name:"ca" type:"path"`
	SecretsDir string `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	Disk       string `help:"A directory on the disk that holds the streams." default:"/streams" type:"path"`
	stream.Sizes
	VaultAddr string `help:"URL of Vault. If set, current passwords are kept, because the secret files may be outdated." env:"VAULT_ADDR" name:"vault-addr"`

	// Mesh is the mesh, if it is not that of compose.yaml.
	Mesh mesh.Description `kong:"-"`
	// Registry makes the registrar's tables, as their owner.
	Registry func(context.Context, *database.Pool) error `kong:"-"`
}

// Run makes streams and consumers, and roles, databases and tables on both servers, as
// far as they are not there, and puts the passwords of the secret files in force.
func (c *Provision) Run(ctx context.Context, log *slog.Logger) error {
	if marked(c.CAFile) {
		return errRestoring
	}
	to := c.Mesh
	if !to.Containers {
		to = Describe(c.CAFile)
	}
	if err := c.setUpStreams(ctx, to.NATSURL(), log); err != nil { // first: the bridge needs nothing else
		return err
	}
	p := mesh.Provisioning{Description: to, Secrets: secret.Files(c.SecretsDir), Registry: c.Registry, Keep: c.VaultAddr != ""}
	if err := p.Run(ctx); err != nil {
		return err
	}
	fmt.Println("the databases are ready")
	return nil
}

func (c *Provision) setUpStreams(ctx context.Context, url string, log *slog.Logger) error {
	sizes := c.Sizes
	sizes.Free = func() (uint64, error) { return doctor.DiskFree(c.Disk) }
	to := mesh.OperatorStreams{Config: stream.Config{URL: url, CAFile: c.CAFile}, Secrets: secret.Files(c.SecretsDir), Log: log}
	changes, err := to.SetUp(ctx, sizes, false)
	for _, change := range changes {
		fmt.Println(change)
	}
	if err == nil {
		fmt.Println("the streams on", url, "are ready")
	}
	return err
}
