package server

import (
	"errors"
	"time"

	"github.com/f2mesh/f2mesh/services/registrar/est"
	"github.com/f2mesh/f2mesh/services/registrar/watch"
)

// Config of the service. Its zero value is not valid; the CLI gives the defaults.
type Config struct {
	RegistryDSN    string        `help:"PostgreSQL database of the registry. The password comes from the secret." env:"REGISTRY_DSN" default:"postgres://f2mesh_registrar@127.0.0.1:5432/registry" name:"registry-dsn"`
	MetadataDSN    string        `help:"PostgreSQL database of the fleet's metadata, with the claiming codes. Same user." env:"REGISTRAR_METADATA_DSN" default:"postgres://f2mesh_registrar@127.0.0.1:5432/metadata" name:"claims-dsn"`
	MetadataSchema string        `help:"Schema of the metadata tables." env:"METADATA_SCHEMA" default:"public" name:"metadata-schema"`
	Devices        string        `help:"Directory of the device bundles." env:"REGISTRAR_DEVICES" default:"devices" type:"path" name:"devices-dir"`
	Broker         string        `help:"Directory of the broker's ACL and revocation lists, shared with the broker." env:"REGISTRAR_BROKER_DIR" default:"mosquitto" type:"path" name:"broker-dir"`
	ServerCAs      string        `help:"Additional CA certificates that devices trust (PEM)." env:"REGISTRAR_SERVER_CAS" type:"path" name:"server-cas"`
	Listen         string        `help:"Address for EST over TLS. Empty: disabled." env:"REGISTRAR_EST" default:":8443" name:"est"`
	CertFile       string        `help:"Certificate for EST (PEM, with its chain)." env:"REGISTRAR_EST_CERT" type:"path" name:"est-cert"`
	KeyFile        string        `help:"Key of that certificate (PEM)." env:"REGISTRAR_EST_KEY" type:"path" name:"est-key"`
	Refresh        time.Duration `help:"How often the revocation list is checked. It is renewed after a third of its lifetime." env:"REGISTRAR_REFRESH" default:"10m" name:"refresh"`

	Limits est.Limits   `embed:"" prefix:"est-"`
	Watch  watch.Config `embed:""`
}

// Validate names the first setting that cannot work. The files are New's to look for.
func (c *Config) Validate() error {
	switch {
	case c.RegistryDSN == "" || c.MetadataDSN == "" || c.MetadataSchema == "":
		return errors.New("registry-dsn, claims-dsn and metadata-schema must not be empty")
	case c.Devices == "" || c.Broker == "":
		return errors.New("devices-dir and broker-dir must not be empty")
	case c.Refresh <= 0:
		return errors.New("refresh must be positive")
	}
	if err := c.Limits.Validate(); err != nil {
		return err
	}
	return c.Watch.Validate()
}
