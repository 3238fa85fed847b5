package main

// Roles of PostgreSQL.
const (
	roleDecoder   = "f2mesh_decoder"   // reads metadata
	roleWriter    = "f2mesh_writer"    // owns the tables of readings
	roleReader    = "f2mesh_reader"    // reads both: people, dashboards
	roleRegistrar = "f2mesh_registrar" // owns the registry, reads claiming codes
	roleAudit     = "f2mesh_audit"     // owns the audit trail's table; nobody logs in as it
	rolePooled    = "f2mesh_pooled"    // its members may come through the pooler
)

// Databases, and the schema of the fleet's metadata.
const (
	databaseMetadata  = "metadata"
	databaseRegistry  = "registry"
	databaseTelemetry = "telemetry"
	databaseAny       = "postgres" // where every role may log in, to nothing
	metadataSchema    = "fleet"
)

// Names of the secrets, as files of the secrets directory.
const (
	secretMQTTUsername       = "mqtt_username" //nolint:gosec // the name of a secret, not a secret
	secretMQTTPassword       = "mqtt_password"
	secretMQTTRegistrar      = "mqtt_registrar_password" //nolint:gosec // the name of a secret, not a secret
	secretMQTTOperator       = "mqtt_operator_password"  //nolint:gosec // the name of a secret, not a secret
	secretNATSPasswords      = "nats_%s_password"        // by user
	secretPostgres           = "postgres_password"
	secretTimescale          = "timescale_password"
	secretRegistry           = "registry_password"
	secretReader             = "postgres_reader_password" //nolint:gosec // the name of a secret, not a secret
	secretPgBouncer          = "pgbouncer_password"
	secretSuperuser          = "postgres_superuser_password" //nolint:gosec // the name of a secret, not a secret
	secretTimescaleSuperuser = "timescale_superuser_password"
	secretGrafanaAdmin       = "grafana_admin_password"
)

// Streams that a backup saves and restores in an order of their own.
const (
	streamCommands = "COMMANDS"
	streamAudit    = "AUDIT"
	streamLatest   = "KV_LATEST"
)

// loopback is where all listens that has no need to be reached from elsewhere.
const loopback = "127.0.0.1"
