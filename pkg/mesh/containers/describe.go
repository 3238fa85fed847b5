package containers

import "github.com/f2mesh/f2mesh/pkg/mesh"

// Describe says where the servers of compose.yaml are. caFile is the mesh's CA, as the containers see it.
func Describe(caFile string) mesh.Description {
	hosts := map[string]string{}
	for _, server := range []string{
		mesh.ServerNATS, mesh.ServerMosquitto, mesh.ServerMetadata, mesh.ServerTelemetry, mesh.ServerPgBouncer, mesh.ServerHealth,
	} {
		hosts[server] = server
	}
	return mesh.Description{
		Containers: true, Hosts: hosts, CAFile: caFile,
		Ports: mesh.Ports{
			MQTT: 1883, MQTTTLS: 8883, People: 1884, WebSocket: 9001, NATS: 4222, Postgres: 5432, Telemetry: 5432,
			PgBouncer: 6432, HTTP: 8000, EST: 8443,
		},
	}
}
