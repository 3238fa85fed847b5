package doctor

// hidden says why a check cannot look into containers from outside, "" if it can:
// what nobody can reach there is safe from the doctor too.
func (m *Mesh) hidden(check string) string {
	if !m.Containers {
		return ""
	}
	switch check {
	case "secret-logs", "database-failed-logins":
		return "the logs are in the containers' engine: search what `docker compose logs` shows"
	case "database-ports", "network-listeners":
		return "container-hardening looks at what the containers publish"
	case "process-users":
		return "container-hardening looks at whom the containers run as"
	case "tls-revocation":
		return "the broker's lists are in a volume; the registrar raises an alarm before one ends"
	case "loss-broker-queue":
		return "the broker's configuration is in a volume"
	case "database-tls", "database-password", "database-privileges", "loss-postgres-sync", "input-injection":
		if m.Ports.Postgres == 0 {
			return "no database has a published port; EXPOSE_DATABASE_PORTS=true gives this machine one"
		}
	}
	return ""
}
