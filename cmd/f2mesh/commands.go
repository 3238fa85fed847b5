package main

import (
	"fmt"

	"github.com/f2mesh/f2mesh/pkg/mesh/containers"
	"github.com/f2mesh/f2mesh/pkg/mesh/local"
	"github.com/f2mesh/f2mesh/pkg/mesh/send"
	"github.com/f2mesh/f2mesh/pkg/mesh/soak"
	evaluator "github.com/f2mesh/f2mesh/services/alarm"
	trimmer "github.com/f2mesh/f2mesh/services/keeper"
)

// commands is the command line: flags, environment variables and help are all
// declared here and in the services' Config types.
type commands struct {
	globals

	Up       upCommand                `cmd:"" help:"Run a mesh on this machine, without containers."`
	Down     downCommand              `cmd:"" help:"Stop the mesh that up --detach started."`
	Status   statusCommand            `cmd:"" help:"Show each stage's rate, lag and health."`
	Tail     tailCommand              `cmd:"" help:"Show decoded readings and events as they arrive."`
	Audit    auditCommand             `cmd:"" help:"Account for every received message."`
	Dead     deadCommands             `cmd:"" help:"List, show, replay and purge dead letters."`
	Redecode redecodeCommand          `cmd:"" help:"Decode messages of RAW again with current metadata and replace their rows."`
	Doctor   doctorCommand            `cmd:"" help:"Run security checks against the running mesh."`
	Backup   backupCommand            `cmd:"" help:"Back up a running mesh to one encrypted file."`
	Restore  restoreCommand           `cmd:"" help:"Restore a backup into an empty state directory."`
	Env      envCommand               `cmd:"" help:"Print a running mesh's addresses and credential files as shell variables."`
	Simulate simulateCommand          `cmd:"" help:"Simulate a fleet of F2 controllers."`
	Soak     soak.Command             `cmd:"" help:"Prove that a mesh of its own loses and doubles nothing under faults."`
	Command  send.Send                `cmd:"" help:"Send a command to a component, or to many, and print the outcome."`
	Alarm    evaluator.PeopleCommands `cmd:"" help:"List, acknowledge and shelve alarms, and run the alarm service."`
	Device   deviceCommands           `cmd:"" help:"Manage controllers and their certificates."`
	Metadata metadataCommand          `cmd:"" help:"Manage the fleet's metadata in PostgreSQL."`
	Secret   secretCommands           `cmd:"" help:"Show and rotate the mesh's credentials."`
	Setup    setupCommand             `cmd:"" help:"Create the secret files of a mesh, the files that compose.yaml needs, or the streams on a NATS server."`
	Vault    vaultCommands            `cmd:"" help:"Use HashiCorp Vault for the mesh's secrets."`

	Bridge  bridgeCommand  `cmd:"" help:"Run the bridge: MQTT to JetStream."`
	Decoder decoderCommand `cmd:"" help:"Run the decoder: RAW to DECODED."`
	Writer  writerCommand  `cmd:"" help:"Run the writer: DECODED to TimescaleDB."`

	Keeper    trimmer.Process  `cmd:"" help:"Run the keeper: trim the history of RAW and DECODED."`
	Registrar registrarCommand `cmd:"" help:"Run the registrar: enrolment, revocation list, alarms, audit trail."`
	Health    healthCommand    `cmd:"" help:"Run the health service: the health API and alarms."`

	Init        containers.Init            `cmd:"" help:"Write certificates and configuration into the containers' volumes." group:"Containers (compose.yaml)"`
	Provision   provisionCommand           `cmd:"" help:"Create streams, roles, databases and tables on the containers' servers." group:"Containers (compose.yaml)"`
	Demo        demoCommand                `cmd:"" help:"Register the demo fleet with the containers." group:"Containers (compose.yaml)"`
	Load        loadCommand                `cmd:"" help:"Fill the containers' servers in a restore. restore --compose runs it." group:"Containers (compose.yaml)"`
	Broker      containers.BrokerContainer `cmd:"" help:"Run Mosquitto in its container, and reload it when its files change." group:"Containers (compose.yaml)"`
	Healthcheck containers.Healthcheck     `cmd:"" help:"Check a server. The exit status is the result." group:"Containers (compose.yaml)"`

	Node     local.NodeCommand `cmd:"" hidden:"" help:"Run one NATS server of up --nodes."`
	SoakNATS soak.NATS         `cmd:"" hidden:"" name:"soak-nats" help:"Run the NATS server of a soak."`

	Version versionCommand `cmd:"" help:"Print the version."`
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run() error {
	_, err := fmt.Println("f2mesh", version)
	return err
}
