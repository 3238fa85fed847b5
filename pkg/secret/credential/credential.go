// Package credential lists the credentials of a mesh and makes their secrets. It
// knows no server: pkg/server/natsserver, pkg/server/mosquitto and pkg/server/postgres put them in
// force, pkg/secret/rotation replaces them while they are in use.
package credential

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is the kind of server that a credential is for.
type Kind string

// The kinds of servers.
const (
	NATS     Kind = "nats"
	MQTT     Kind = "mqtt"
	Postgres Kind = "postgres"
)

// Credential is a secret that logs a user in. Of each user there are two, which
// alternate in a rotation (design 8); the secret says which of them it is for.
type Credential struct {
	// Name is the name of the secret.
	Name string
	Kind Kind
	// User is the first of the two users, which a secret without a user name is for.
	User string
	// Services log in with it while they run. People's and our own commands'
	// credentials have none.
	Services []string
}

// All lists the credentials of a mesh.
func All() []Credential {
	return []Credential{
		{Name: "mqtt_password", Kind: MQTT, User: "bridge", Services: []string{"bridge"}},
		{Name: "mqtt_registrar_password", Kind: MQTT, User: "registrar", Services: []string{"registrar"}},
		{Name: "mqtt_operator_password", Kind: MQTT, User: "operator"},
		{Name: "nats_bridge_password", Kind: NATS, User: "bridge", Services: []string{"bridge"}},
		{Name: "nats_decoder_password", Kind: NATS, User: "decoder", Services: []string{"decoder"}},
		{Name: "nats_writer_password", Kind: NATS, User: "writer", Services: []string{"writer"}},
		{Name: "nats_registrar_password", Kind: NATS, User: "registrar", Services: []string{"registrar"}},
		{Name: "nats_keeper_password", Kind: NATS, User: "keeper", Services: []string{"keeper"}},
		{Name: "nats_health_password", Kind: NATS, User: "health", Services: []string{"health"}},
		{Name: "nats_alarm_password", Kind: NATS, User: "alarm", Services: []string{"alarm"}},
		{Name: "nats_console_password", Kind: NATS, User: "console", Services: []string{"health"}},
		{Name: "nats_operator_password", Kind: NATS, User: "operator"},
		{Name: "nats_sys_password", Kind: NATS, User: "sys"},
		{Name: "postgres_password", Kind: Postgres, User: "f2mesh_decoder", Services: []string{"decoder"}},
		{Name: "timescale_password", Kind: Postgres, User: "f2mesh_writer", Services: []string{"writer"}},
		{Name: "registry_password", Kind: Postgres, User: "f2mesh_registrar", Services: []string{"registrar"}},
		{Name: "postgres_reader_password", Kind: Postgres, User: "f2mesh_reader", Services: []string{"health"}},
		{Name: "pgbouncer_password", Kind: Postgres, User: "f2mesh_pgbouncer"},
		{Name: "postgres_superuser_password", Kind: Postgres, User: "postgres"},
	}
}

// SecondSuperuser is that of the server of the readings, where the metadata have another server (compose.yaml).
func SecondSuperuser() Credential {
	return Credential{Name: "timescale_superuser_password", Kind: Postgres, User: "postgres"}
}

// Username is the secret that holds the bridge's user name at the broker, for
// where mqtt_password holds the password alone.
const Username = "mqtt_username"

// HealthAPI is the secret that lets people and Prometheus ask the health API. It
// logs nobody in to a server, so no rotation replaces it; the health service takes
// a new one by itself.
const HealthAPI = "health_password"

// Metrics is the secret that lets Prometheus ask the services of compose.yaml, each at
// its own port. They take a new one by themselves.
const Metrics = "metrics_password"

// Of lists the credentials of one kind of server.
func Of(kind Kind) []Credential {
	return slices.DeleteFunc(All(), func(c Credential) bool { return c.Kind != kind })
}

// Find answers the credential of a secret.
func Find(name string) (c Credential, ok bool) {
	all := append(All(), SecondSuperuser())
	i := slices.IndexFunc(all, func(c Credential) bool { return c.Name == name })
	if i < 0 {
		return c, false
	}
	return all[i], true
}

// Other is the user that alternates with the given one.
func (c Credential) Other(user string) string {
	if user == c.User {
		return Alternate(c.User)
	}
	return c.User
}

// Has tells whether user is one of the two.
func (c Credential) Has(user string) bool { return user == c.User || user == Alternate(c.User) }

const suffix = "_b"

// Alternate is the second of a user's two names.
func Alternate(user string) string { return user + suffix }

// Choose returns those of the credentials that are named.
func Choose(all []Credential, names []string) (chosen []Credential, err error) {
	for _, name := range names {
		i := slices.IndexFunc(all, func(one Credential) bool { return one.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown credential %q; known: %s", name, strings.Join(Names(all), ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// Names are the names of the credentials' secrets.
func Names(credentials []Credential) (all []string) {
	for _, one := range credentials {
		all = append(all, one.Name)
	}
	return all
}
