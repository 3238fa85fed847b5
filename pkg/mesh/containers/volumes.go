package containers

import (
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/identity"
	"github.com/f2mesh/f2mesh/pkg/secret"
)

// Init writes what the containers start from into their volumes.
type Init struct {
	Volumes     string   `help:"Directory in which each volume of compose.yaml is mounted under its name." default:"/volumes" type:"existingdir"`
	SecretsDir  string   `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	ServerNames []string `help:"Additional host names and addresses of the servers, for their certificates." env:"F2MESH_SERVER_NAMES"`
	MQTTAuth    bool     `help:"Must be true: the broker always requires a password or a certificate." env:"ENABLE_MQTT_AUTH" default:"true" negatable:"" name:"mqtt-auth"`
	Retained    bool     `help:"Allow controllers to publish retained messages." env:"F2MESH_MQTT_RETAINED" name:"mqtt-retained"`
	VaultAddr   string   `help:"URL of Vault. If set, current passwords are kept, because the secret files may be outdated." env:"VAULT_ADDR" name:"vault-addr"`
	Restore     bool     `help:"Begin a restore: read files of a backup from standard input into empty volumes. restore --compose runs this." hidden:""`
	Restored    bool     `help:"End a restore. restore --compose runs this." hidden:""`

	authority *identity.Authority
	secrets   secret.Files
}

func (c *Init) volume(elements ...string) string {
	return filepath.Join(append([]string{c.Volumes}, elements...)...)
}
