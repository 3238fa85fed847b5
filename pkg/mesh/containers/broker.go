package containers

import (
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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/secret"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// BrokerContainer runs Mosquitto in its container.
type BrokerContainer struct {
	Dir        string   `help:"Configuration directory of the broker, as init wrote it." default:"/mosquitto/config" type:"existingdir"`
	RunDir     string   `help:"Directory that tells other containers about the broker." default:"/mosquitto/run" type:"existingdir"`
	Host       string   `help:"Host name that they connect to." default:"mosquitto"`
	Session    string   `help:"Client id of the bridge, whose session is created at the start. Empty: none." default:"f2mesh-bridge"`
	Filter     string   `help:"MQTT topic filter of the bridge, to which its session subscribes." env:"MQTT_FILTER" default:"#"`
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
	conf, err := readBrokerConf(c.Dir)
	if err != nil {
		return err
	}
	if err := mosquitto.ForgetCommands(conf.data); err != nil {
		return err
	}
	if err := c.saveSession(ctx, conf, command[0], log); err != nil {
		return err
	}
	broker := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // the container's own command; it stops by signal
	broker.Stdout, broker.Stderr = os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(signals)
	if err := broker.Start(); err != nil {
		return fmt.Errorf("starting the broker: %w", err)
	}
	return c.stand(context.WithoutCancel(ctx), conf, attendant, broker, signals, log)
}

// stand hands signals on and reloads, until the broker has ended.
func (c *BrokerContainer) stand(ctx context.Context, conf *brokerConf, attendant *mosquitto.Attendant, broker *exec.Cmd, signals <-chan os.Signal, log *slog.Logger) error {
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
		if err := c.attend(ctx, conf, attendant, broker, log); err != nil && ctx.Err() == nil {
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

// saveSession sees to it that the broker has the bridge's session from its first moment.
func (c *BrokerContainer) saveSession(ctx context.Context, conf *brokerConf, program string, log *slog.Logger) error {
	session, password, err := c.session(ctx)
	if err != nil {
		return err
	}
	return mosquitto.FirstSession{
		Session: session, Password: password, Data: conf.data, Conf: conf.text, Process: process.Config{Path: program, Log: log},
		Write: func(text string) (string, error) {
			path := filepath.Join(os.TempDir(), "first.conf")
			return path, os.WriteFile(path, []byte(text), 0o600)
		},
	}.Save(ctx)
}

// session is the bridge's, empty if there is none.
func (c *BrokerContainer) session(ctx context.Context) (session mosquitto.Session, password string, err error) {
	if c.Session == "" {
		return session, "", nil
	}
	user, password, err := mesh.LogIn(ctx, secret.Files(c.SecretsDir), mesh.SecretMQTTPassword)
	return mosquitto.Session{User: user, ClientID: c.Session, Filter: c.Filter}, password, err
}

// attend waits until the broker serves, opens the bridge's session, lets people in, has the
// broker save, and reloads it whenever it is asked for.
func (c *BrokerContainer) attend(ctx context.Context, conf *brokerConf, attendant *mosquitto.Attendant, broker *exec.Cmd, log *slog.Logger) error {
	for {
		err := c.open(ctx, conf.services)
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
		Dir: c.Dir, Socket: conf.people, Plain: c.People, WebSocket: c.WebSocket, Origins: c.Origins, Log: log,
		CertFile: filepath.Join(c.Dir, "server.crt"), KeyFile: filepath.Join(c.Dir, "server.key"),
	}.Open()
	if err != nil {
		return err
	}
	defer func() { _ = doors.Close() }()
	var saving sync.WaitGroup
	defer saving.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	saving.Go(func() {
		mosquitto.KeepSaved(ctx, conf.data, func() error { return broker.Process.Signal(syscall.SIGUSR1) })
	})
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
	session, password, err := c.session(ctx)
	if err != nil {
		return err
	}
	return mosquitto.OpenSession(ctx, address, session, password)
}

// brokerConf is what a broker's configuration says.
type brokerConf struct {
	text             string
	services, people string // where it serves services, in its own container, and its socket for people
	data             string // where it saves its sessions
}

func readBrokerConf(dir string) (*brokerConf, error) {
	text, err := os.ReadFile(filepath.Join(dir, "mosquitto.conf")) //nolint:gosec // the broker's own folder
	if err != nil {
		return nil, err
	}
	c := &brokerConf{text: string(text)}
	for line := range strings.Lines(c.text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		path, socket := strings.CutPrefix(value, "0 ")
		switch {
		case name == "persistence_location":
			c.data = value
		case name != "listener":
		case socket:
			c.people = path
		case c.services == "":
			c.services = net.JoinHostPort(mesh.Loopback, value)
		}
	}
	if c.services == "" || c.people == "" || c.data == "" {
		return nil, errors.New("mosquitto.conf has no persistence_location, no listener for services, or none for people")
	}
	return c, nil
}
