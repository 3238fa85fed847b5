package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"sync"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/services/simulator"
)

const (
	loadCommand = "load"
	controllers = 50
	// points is how many data points the frame of a message has.
	points = 3
)

// load sends messages as fast as the broker acknowledges them, or at a rate, and prints a line after the first
// acknowledgement. It is a process of its own, so that its CPU time counts apart.
func load(ctx context.Context, args []string) error {
	var once sync.Once
	cfg := simulator.Config{OnAcknowledged: func(string, []byte) { once.Do(func() { fmt.Println("sending") }) }}
	flags := flag.NewFlagSet(loadCommand, flag.ExitOnError)
	flags.StringVar(&cfg.Broker, "broker", "", "`URL` of the broker")
	flags.StringVar(&cfg.CAFile, "ca", "", "`file` of the broker's CA")
	flags.StringVar(&cfg.Devices, "devices", "", "`directory` of the controllers' certificates")
	flags.IntVar(&cfg.Messages, "messages", 0, "messages to send")
	flags.IntVar(&cfg.Rate, "rate", 0, "messages a second; 0: as fast as the broker acknowledges")
	_ = flags.Parse(args[1:]) // it exits
	senders := fleet.Demo(controllers)
	for i := range senders {
		if err := keepOneSensor(&senders[i]); err != nil {
			return err
		}
	}
	_, err := simulator.New(cfg, senders, slog.New(slog.DiscardHandler)).Run(ctx)
	return err
}

// keepOneSensor leaves a controller its first sensor alone, whose frame has three data points.
func keepOneSensor(c *fleet.Controller) error {
	first := c.Connectors[0]
	first.Components = first.Components[:1]
	if s := first.Components[0].Sensor; s == nil || s.Direct || len(s.Template.Points) != points {
		return errors.New("the first component of the demo fleet is no sensor whose frame has three data points")
	}
	c.Connectors = []fleet.Connector{first}
	return nil
}
