package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/f2mesh/f2mesh/pkg/mesh"
)

type envCommand struct{}

// Run prints shell variables for `eval`. Passwords are named by file.
func (envCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	st := g.state()
	r, err := st.Load()
	if err != nil {
		return err
	}
	secrets, err := st.Secrets(log)
	if err != nil {
		return err
	}
	defer secrets.Close()
	operator, _, err := mesh.LogIn(ctx, secrets, mesh.SecretMQTTOperator)
	if err != nil {
		return err
	}
	reader, _, err := mesh.LogIn(ctx, secrets, mesh.SecretReader)
	if err != nil {
		return err
	}
	for _, v := range [][2]string{
		{"F2MESH_STATE_DIR", st.Dir},
		{"F2MESH_SECRETS_DIR", st.SecretsDir()},
		{"F2MESH_CA", r.CAFile},
		{"MQTT_HOST", r.Host},
		{"MQTT_PORT", strconv.Itoa(r.Ports.People)},
		{"MQTT_TLS_HOST", r.Public},
		{"MQTT_TLS_PORT", strconv.Itoa(r.Ports.MQTTTLS)},
		{"MQTT_WEBSOCKET_PORT", strconv.Itoa(r.Ports.WebSocket)},
		{"MQTT_URL", "tcp://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.MQTT))},
		{"MQTT_USERNAME", operator},
		{"MQTT_PASSWORD_FILE", st.OperatorPassword()},
		{"NATS_URL", r.NATSURL()},
		{"NATS_CONTEXT", r.Context},
		{"PGHOST", r.Host},
		{"PGPORT", strconv.Itoa(r.Ports.Postgres)},
		{"PGUSER", reader},
		{"PGDATABASE", mesh.DatabaseTelemetry},
		{"PGPASSFILE", st.Passfile()},
		{"PGSSLMODE", "verify-full"},
		{"PGSSLROOTCERT", r.CAFile},
		{"METADATA_DSN", r.DSN(mesh.RoleDecoder, mesh.DatabaseMetadata)},
		{"METADATA_POOLED_DSN", r.PooledDSN(mesh.RoleDecoder, mesh.DatabaseMetadata)},
		{"METADATA_SCHEMA", mesh.MetadataSchema},
		{"TIMESCALE_DSN", r.DSN(mesh.RoleWriter, mesh.DatabaseTelemetry)},
		{"TIMESCALE_POOLED_DSN", r.PooledDSN(mesh.RoleWriter, mesh.DatabaseTelemetry)},
		{"USE_CONNECTION_POOLING", strconv.FormatBool(r.Ports.PgBouncer != 0)},
		{"PGBOUNCER_PORT", strconv.Itoa(r.Ports.PgBouncer)},
		{"REGISTRY_DSN", r.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry)},
		{"REGISTRAR_METADATA_DSN", r.DSN(mesh.RoleRegistrar, mesh.DatabaseMetadata)},
		{"EST_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.EST)) + "/.well-known/est"},
		{"F2MESH_HTTP_CURL", st.CurlConfig()},
		{"F2MESH_HTTP_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.HTTP))},
	} {
		fmt.Printf("export %s=%s\n", v[0], mesh.ShellQuote(v[1]))
	}
	return nil
}
