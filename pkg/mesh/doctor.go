package mesh

import (
	"context"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/doctor"
	"github.com/f2mesh/f2mesh/pkg/secret/credential"
)

// DoctorTarget is the mesh that the doctor checks.
func DoctorTarget(s State, r Description, logIn func(context.Context, string) (string, string, error)) *doctor.Target {
	m := &doctor.Target{
		Dir: s.Dir, PID: r.PID, Host: r.Host, Public: r.Public, CAFile: r.CAFile, LogIn: logIn,
		Ports: doctor.TargetPorts{
			MQTT: r.Ports.MQTT, MQTTTLS: r.Ports.MQTTTLS, People: r.Ports.People, WebSocket: r.Ports.WebSocket,
			NATS: r.Ports.NATS, Postgres: r.Ports.Postgres, PgBouncer: r.Ports.PgBouncer,
			HTTP: r.Ports.HTTP, EST: r.Ports.EST,
		},
		Now: time.Now, Free: doctor.DiskFree, Secrets: []string{credential.HealthAPI},
	}
	for _, one := range credential.All() {
		m.Secrets = append(m.Secrets, one.Name)
	}
	return m
}
