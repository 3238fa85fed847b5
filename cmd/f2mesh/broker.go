package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/mosquitto"
)

type brokerCommand struct {
	Dir     string   `help:"The broker's configuration folder, as init made it." default:"/mosquitto/config" type:"existingdir"`
	Command []string `arg:"" passthrough:"" help:"The broker and its arguments: /usr/sbin/mosquitto -c /mosquitto/config/mosquitto.conf"`
}

// Run runs the broker in a container of its own, and reloads it when another
// container has changed its files: neither needs to see the other's processes.
func (c *brokerCommand) Run(log *slog.Logger) error {
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return errors.New("name the broker's program behind --")
	}
	broker := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // the container's own command; it stops by signal
	broker.Stdout, broker.Stderr = os.Stdout, os.Stderr
	broker.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := broker.Start(); err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	return c.attend(broker, signals, log)
}

// attend hands signals on and reloads, until the broker has ended.
func (c *brokerCommand) attend(broker *exec.Cmd, signals <-chan os.Signal, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-signals:
				_ = broker.Process.Signal(s) // it may have ended just now
			}
		}
	})
	group.Go(func() error {
		err := mosquitto.Follow(ctx, c.Dir, func() error {
			log.Info("the broker's files have changed, reloading", "service", partMosquitto)
			return broker.Process.Signal(syscall.SIGHUP)
		})
		if err != nil && ctx.Err() == nil {
			log.Error("the broker is not reloaded any more", "service", partMosquitto, "error", err)
		}
		return nil
	})
	err := broker.Wait()
	cancel()
	_ = group.Wait() // reports nothing
	if err != nil {
		return fmt.Errorf("the broker ended: %w", err)
	}
	return nil
}
