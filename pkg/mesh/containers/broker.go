package containers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

// BrokerContainer runs Mosquitto in its container.
type BrokerContainer struct {
	Dir        string   `help:"Configuration directory of the broker, as init wrote it." default:"/mosquitto/config" type:"existingdir"`
	RunDir     string   `help:"Directory that tells other containers about the broker." default:"/mosquitto/run" type:"existingdir"`
	Host       string   `help:"Host name that they connect to." default:"mosquitto"`
	Session    string   `help:"Client id of the bridge, whose session is created at the start. Empty: none." default:"f2mesh-bridge"`
	People     string   `help:"Address of the MQTT listener for people's tools." default:":1884"`
	WebSocket  string   `help:"Address of the listener for browsers (MQTT over WebSocket, TLS)." default:":9001" name:"websocket"`
	Origins    []string `help:"Additional web origins that may use it: https://console.example.org" env:"F2MESH_MQTT_ORIGINS" name:"mqtt-origins"`
	SecretsDir string   `help:"Directory of secret files." env:"F2MESH_SECRETS_DIR" default:"/run/secrets" type:"path"`
	Command    []string `arg:"" passthrough:"" help:"Command line of the broker: /usr/sbin/mosquitto -c /mosquitto/config/mosquitto.conf"`
}

// Run runs the broker in a container of its own, lets people in, and reloads it when
// another container has changed its files: neither sees the other's processes.
func (c *BrokerContainer) Run(ctx context.Context, log *slog.Logger) error {
	command := c.Command
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	if len(command) == 0 {
		return errors.New("name the broker's program behind --")
	}
	attendant, err := mosquitto.Attend(c.Dir, c.RunDir, c.Host)
	if err != nil {
		return err
	}
	defer func() { _ = attendant.Close() }()
	broker := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // the container's own command; it stops by signal
	broker.Stdout, broker.Stderr = os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := broker.Start(); err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	return c.stand(context.WithoutCancel(ctx), attendant, broker, signals, log)
}

// stand hands signals on and reloads, until the broker has ended.
func (c *BrokerContainer) stand(ctx context.Context, attendant *mosquitto.Attendant, broker *exec.Cmd, signals <-chan os.Signal, log *slog.Logger) error {
	ctx, cancel := context.WithCancel(ctx)
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
		if err := c.attend(ctx, attendant, broker, log); err != nil && ctx.Err() == nil {
			log.Error("the broker is not attended any more", "error", err)
			_ = broker.Process.Signal(syscall.SIGTERM) // a revoked controller must not stay
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

// attend waits until the broker serves, opens the bridge's session, lets people in, and
// reloads the broker whenever it is asked for.
func (c *BrokerContainer) attend(ctx context.Context, attendant *mosquitto.Attendant, broker *exec.Cmd, log *slog.Logger) error {
	services, people, err := c.listeners()
	if err != nil {
		return err
	}
	for {
		err := c.open(ctx, services)
		if err == nil {
			break
		}
		if _, network := errors.AsType[*net.OpError](err); !network {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	doors, err := mosquitto.People{
		Dir: c.Dir, Socket: people, Plain: c.People, WebSocket: c.WebSocket, Origins: c.Origins, Log: log,
		CertFile: filepath.Join(c.Dir, "server.crt"), KeyFile: filepath.Join(c.Dir, "server.key"),
	}.Open()
	if err != nil {
		return err
	}
	defer func() { _ = doors.Close() }()
	return attendant.Follow(ctx, func() error {
		log.Info("the broker's files have changed, reloading")
		return broker.Process.Signal(syscall.SIGHUP)
	})
}

// open opens the bridge's session, or tries the listener if there is none.
func (c *BrokerContainer) open(ctx context.Context, address string) error {
	if c.Session == "" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	user, password, err := mesh.LogIn(ctx, secret.Files(c.SecretsDir), mesh.SecretMQTTPassword)
	if err != nil {
		return err
	}
	return mosquitto.OpenSession(ctx, address, mosquitto.Session{User: user, ClientID: c.Session}, password)
}

// listeners are where the broker serves services, in its own container, and its socket
// for people.
func (c *BrokerContainer) listeners() (services, people string, err error) {
	file, err := os.Open(filepath.Join(c.Dir, "mosquitto.conf"))
	if err != nil {
		return "", "", err
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		where, ok := strings.CutPrefix(lines.Text(), "listener ")
		switch path, socket := strings.CutPrefix(where, "0 "); {
		case !ok:
		case socket:
			people = path
		case services == "":
			services = net.JoinHostPort(mesh.Loopback, where)
		}
	}
	if services == "" || people == "" {
		return "", "", errors.New("mosquitto.conf has no listener for services, or none for people")
	}
	return services, people, nil
}
