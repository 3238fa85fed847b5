package service

import (
	"log/slog"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Release is the version of this program.
type Release string

// Host is what a service needs of the process that it runs in.
type Host struct {
	Nats    stream.Config
	Secrets *secret.Store // the service's own
	Version string        // of this program
	Log     *slog.Logger
}
