package bridge

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/services/bridge/command"
)

// newCommands returns the other direction. It has its own connection to the broker, with
// the bridge's credential.
func newCommands(cfg Config, credential secret.Login, streams *stream.Client, reg prometheus.Registerer, log *slog.Logger) (*command.Commands, error) {
	config, err := tlsConfig(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	return command.New(command.Config{
		URL: cfg.URL, TLS: config, ClientID: cfg.ClientID + "-commands", Consumer: command.ConsumerName(cfg.ClientID),
		MaxAge: cfg.CommandMaxAge, DrainTimeout: cfg.DrainTimeout,
	}, credential, streams, reg, log)
}
