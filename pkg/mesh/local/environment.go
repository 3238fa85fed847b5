package local

import "github.com/f2mesh/f2mesh/pkg/mesh"

// ServiceEnvironment is what a service that runs as a process of its own needs to reach the
// servers of the mesh: the environment variables of `f2mesh bridge`, `f2mesh decoder` and so on.
func (m *Parts) ServiceEnvironment() []string {
	certificate, key := m.ServerPair()
	return []string{
		"NATS_URL=" + m.Describe().NATSURL(), "F2MESH_CA=" + m.Authority.CAFile(), "F2MESH_SECRETS_DIR=" + m.State.SecretsDir(),
		"MQTT_URL=tcp://" + m.Address(m.Ports().MQTT), "METADATA_SCHEMA=" + mesh.MetadataSchema,
		"METADATA_DSN=" + m.DSN(mesh.RoleDecoder, mesh.DatabaseMetadata), "METADATA_POOLED_DSN=" + m.PooledDSN(mesh.RoleDecoder, mesh.DatabaseMetadata),
		"TIMESCALE_DSN=" + m.DSN(mesh.RoleWriter, mesh.DatabaseTelemetry), "TIMESCALE_POOLED_DSN=" + m.PooledDSN(mesh.RoleWriter, mesh.DatabaseTelemetry),
		"REGISTRY_DSN=" + m.DSN(mesh.RoleRegistrar, mesh.DatabaseRegistry), "REGISTRAR_METADATA_DSN=" + m.DSN(mesh.RoleRegistrar, mesh.DatabaseMetadata),
		"REGISTRAR_EST=" + m.Public(m.Choose(&m.Cfg.Ports.EST)), "REGISTRAR_EST_CERT=" + certificate, "REGISTRAR_EST_KEY=" + key,
		"REGISTRAR_DEVICES=" + m.State.DevicesDir(), "REGISTRAR_BROKER_DIR=" + m.State.Path("mosquitto"), "REGISTRAR_PKI_DIR=" + m.State.Path("pki"),
		"HEALTH_LISTEN=" + m.Public(m.Choose(&m.Cfg.Ports.HTTP)), "HEALTH_CERT=" + certificate, "HEALTH_KEY=" + key, "HEALTH_CAS=" + m.Authority.CAFile(),
		"CONSOLE_READINGS_DSN=" + m.DSN(mesh.RoleReader, mesh.DatabaseTelemetry), "CONSOLE_METADATA_DSN=" + m.DSN(mesh.RoleReader, mesh.DatabaseMetadata),
		"CONSOLE_REGISTRY_DSN=" + m.DSN(mesh.RoleReader, mesh.DatabaseRegistry),
	}
}
