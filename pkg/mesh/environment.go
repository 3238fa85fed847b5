package mesh

import (
	"context"
	"net"
	"strconv"
)

// ShellVariables are the addresses and credential files of a running mesh as shell variables,
// by name. Passwords are named by file.
func ShellVariables(ctx context.Context, st State, r Description, secrets *Secrets) ([][2]string, error) {
	operator, _, err := LogIn(ctx, secrets, SecretMQTTOperator)
	if err != nil {
		return nil, err
	}
	reader, _, err := LogIn(ctx, secrets, SecretReader)
	if err != nil {
		return nil, err
	}
	return [][2]string{
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
		{"PGDATABASE", DatabaseTelemetry},
		{"PGPASSFILE", st.Passfile()},
		{"PGSSLMODE", "verify-full"},
		{"PGSSLROOTCERT", r.CAFile},
		{"METADATA_DSN", r.DSN(RoleDecoder, DatabaseMetadata)},
		{"METADATA_POOLED_DSN", r.PooledDSN(RoleDecoder, DatabaseMetadata)},
		{"METADATA_SCHEMA", MetadataSchema},
		{"TIMESCALE_DSN", r.DSN(RoleWriter, DatabaseTelemetry)},
		{"TIMESCALE_POOLED_DSN", r.PooledDSN(RoleWriter, DatabaseTelemetry)},
		{"USE_CONNECTION_POOLING", strconv.FormatBool(r.Ports.PgBouncer != 0)},
		{"PGBOUNCER_PORT", strconv.Itoa(r.Ports.PgBouncer)},
		{"REGISTRY_DSN", r.DSN(RoleRegistrar, DatabaseRegistry)},
		{"REGISTRAR_METADATA_DSN", r.DSN(RoleRegistrar, DatabaseMetadata)},
		{"EST_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.EST)) + "/.well-known/est"},
		{"F2MESH_HTTP_CURL", st.CurlConfig()},
		{"F2MESH_HTTP_URL", "https://" + net.JoinHostPort(r.Public, strconv.Itoa(r.Ports.HTTP))},
	}, nil
}
