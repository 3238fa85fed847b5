package mesh

// Roles of PostgreSQL.
const (
	RoleDecoder   = "f2mesh_decoder"   // reads metadata
	RoleWriter    = "f2mesh_writer"    // owns the tables of readings
	RoleReader    = "f2mesh_reader"    // reads both, and who is registered: people, dashboards, the console
	RoleRegistrar = "f2mesh_registrar" // owns the registry, reads claiming codes
	RoleAudit     = "f2mesh_audit"     // owns the audit trail's table; nobody logs in as it
	RolePooled    = "f2mesh_pooled"    // its members may come through the pooler
)

// Databases, and the schema of the fleet's metadata.
const (
	DatabaseMetadata  = "metadata"
	DatabaseRegistry  = "registry"
	DatabaseTelemetry = "telemetry"
	DatabaseAny       = "postgres" // where every role may log in, to nothing
	MetadataSchema    = "fleet"
)

// Names of the secrets, as files of the secrets directory.
const (
	SecretMQTTUsername       = "mqtt_username" //nolint:gosec // the name of a secret, not a secret
	SecretMQTTPassword       = "mqtt_password"
	SecretMQTTRegistrar      = "mqtt_registrar_password" //nolint:gosec // the name of a secret, not a secret
	SecretMQTTOperator       = "mqtt_operator_password"  //nolint:gosec // the name of a secret, not a secret
	secretNATSPasswords      = "nats_%s_password"        // by user
	SecretPostgres           = "postgres_password"
	SecretTimescale          = "timescale_password"
	SecretRegistry           = "registry_password"
	SecretReader             = "postgres_reader_password" //nolint:gosec // the name of a secret, not a secret
	SecretPgBouncer          = "pgbouncer_password"
	SecretSuperuser          = "postgres_superuser_password" //nolint:gosec // the name of a secret, not a secret
	SecretTimescaleSuperuser = "timescale_superuser_password"
	SecretGrafanaAdmin       = "grafana_admin_password"
)

// Streams that a backup saves and restores in an order of their own.
const (
	streamCommands = "COMMANDS"
	streamAudit    = "AUDIT"
	StreamLatest   = "KV_LATEST"
)

// Loopback is where all listens that has no need to be reached from elsewhere.
const Loopback = "127.0.0.1"
