package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
)

type envCommand struct{}

// Run prints shell variables for `eval`. Passwords are named by file.
func (envCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	st := state{dir: g.StateDir}
	r, err := st.load()
	if err != nil {
		return err
	}
	secrets, err := st.keeper(log)
	if err != nil {
		return err
	}
	defer secrets.close()
	operator, _, err := logIn(ctx, secrets, secretMQTTOperator)
	if err != nil {
		return err
	}
	reader, _, err := logIn(ctx, secrets, secretReader)
	if err != nil {
		return err
	}
	for _, v := range [][2]string{
		{"F2MESH_STATE_DIR", st.dir},
		{"F2MESH_SECRETS_DIR", st.secrets()},
		{"F2MESH_CA", r.CAFile},
		{"MQTT_HOST", r.Host},
		{"MQTT_PORT", strconv.Itoa(r.Ports.People)},
		{"MQTT_TLS_HOST", r.Public},
		{"MQTT_TLS_PORT", strconv.Itoa(r.Ports.MQTTTLS)},
		{"MQTT_WEBSOCKET_PORT", strconv.Itoa(r.Ports.WebSocket)},
		{"MQTT_URL", "tcp://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.MQTT))},
		{"MQTT_USERNAME", operator},
		{"MQTT_PASSWORD_FILE", st.operatorPassword()},
		{"NATS_URL", "tls://" + net.JoinHostPort(r.Host, strconv.Itoa(r.Ports.NATS))},
		{"NATS_CONTEXT", r.Context},
		{"PGHOST", r.Host},
		{"PGPORT", strconv.Itoa(r.Ports.Postgres)},
		{"PGUSER", reader},
		{"PGDATABASE", databaseTelemetry},
		{"PGPASSFILE", st.passfile()},
		{"PGSSLMODE", "verify-full"},
		{"PGSSLROOTCERT", r.CAFile},
		{"METADATA_DSN", localDSN(r.Host, r.Ports.Postgres, r.CAFile, roleDecoder, databaseMetadata)},
		{"METADATA_POOLED_DSN", localPooledDSN(r.Host, r.Ports.PgBouncer, r.CAFile, roleDecoder, databaseMetadata)},
		{"METADATA_SCHEMA", metadataSchema},
		{"TIMESCALE_DSN", localDSN(r.Host, r.Ports.Postgres, r.CAFile, roleWriter, databaseTelemetry)},
		{"TIMESCALE_POOLED_DSN", localPooledDSN(r.Host, r.Ports.PgBouncer, r.CAFile, roleWriter, databaseTelemetry)},
		{"USE_CONNECTION_POOLING", strconv.FormatBool(r.Ports.PgBouncer != 0)},
		{"PGBOUNCER_PORT", strconv.Itoa(r.Ports.PgBouncer)},
		{"REGISTRY_DSN", localDSN(r.Host, r.Ports.Postgres, r.CAFile, roleRegistrar, databaseRegistry)},
		{"REGISTRAR_METADATA_DSN", localDSN(r.Host, r.Ports.Postgres, r.CAFile, roleRegistrar, databaseMetadata)},
		{"EST_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.EST)) + "/.well-known/est"},
		{"F2MESH_HTTP_CURL", st.curlConfig()},
		{"F2MESH_HTTP_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.HTTP))},
	} {
		fmt.Printf("export %s=%s\n", v[0], shellQuote(v[1]))
	}
	return nil
}
