package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// setByUp are the services' flags that up sets itself, for the servers that it starts.
var setByUp = []string{
	"bridge-mqtt-url", "bridge-mqtt-ca",
	"decoder-metadata-dsn", "decoder-metadata-pooled-dsn", "decoder-metadata-schema",
	"writer-timescale-dsn", "writer-timescale-pooled-dsn",
	"registrar-registry-dsn", "registrar-claims-dsn", "registrar-metadata-schema", "registrar-devices-dir", "registrar-broker-dir",
	"registrar-server-cas", "registrar-est", "registrar-est-cert", "registrar-est-key", "registrar-mqtt-url", "registrar-mqtt-ca",
	"health-listen", "health-cert", "health-key", "health-cas",
}

// hideSetByUp leaves them out of up's help.
func hideSetByUp(k *kong.Kong) error {
	for _, command := range k.Model.Children {
		for _, flag := range command.Flags {
			flag.Hidden = flag.Hidden || command.Name == "up" && slices.Contains(setByUp, flag.Name)
		}
	}
	return nil
}

// AfterApply refuses them on the command line. Their environment variables may be there
// for the services themselves.
func (c *upCommand) AfterApply(ctx *kong.Context) error {
	for _, element := range ctx.Path {
		if element.Flag == nil || !slices.Contains(setByUp, element.Flag.Name) {
			continue
		}
		service, flag, _ := strings.Cut(element.Flag.Name, "-")
		return fmt.Errorf("up sets --%s itself, for the servers that it starts; for other servers run `f2mesh %s --%s`", element.Flag.Name, service, flag)
	}
	return nil
}
