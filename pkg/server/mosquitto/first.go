package mosquitto

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/f2mesh/f2mesh/pkg/secret/account"

	"github.com/f2mesh/f2mesh/pkg/server/port"
	"github.com/f2mesh/f2mesh/pkg/server/process"
)

// savedFile is where the broker saves sessions and queues, in its data folder.
const savedFile = "mosquitto.db"

// FirstSession saves a session in a broker's data folder that has none yet. Otherwise a
// broker that crashes before its first save has forgotten the session and the subscription
// after that: it acknowledges what controllers publish, and drops it, until the session's
// client is back.
type FirstSession struct {
	Session
	Password string
	// Data is the broker's data folder.
	Data string
	// Process is the broker's program, without arguments.
	Process process.Config
	// Conf is the broker's configuration.
	Conf string
	// Write stores a configuration where the broker can read it, and returns the path.
	Write func(conf string) (path string, err error)
}

// Save does nothing if there is no session, or if the broker has saved before. Otherwise it runs a broker that nobody
// else reaches for as long as it takes to open and save the session.
func (f FirstSession) Save(ctx context.Context) error {
	if f.Session == (Session{}) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(f.Data, savedFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.save(ctx); err != nil {
		return fmt.Errorf("saving the session of %s for the first time: %w", f.ClientID, err)
	}
	return nil
}

func (f FirstSession) save(ctx context.Context) (err error) {
	number, err := port.Pick("127.0.0.1", 0)
	if err != nil {
		return err
	}
	text, err := onlyListener(f.Conf, fmt.Sprintf("%d 127.0.0.1", number))
	if err != nil {
		return err
	}
	path, err := f.Write(text)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(path)) }()
	f.Process.Args = []string{"-c", path}
	broker, err := process.Start(f.Process)
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(number))
	for err = connect(ctx, address, f.client(f.Password)); err != nil; err = connect(ctx, address, f.client(f.Password)) {
		select {
		case <-broker.Done():
			return exited(broker, f.Data)
		case <-ctx.Done():
			return errors.Join(err, ctx.Err(), broker.Kill())
		case <-time.After(pollInterval):
		}
		if errors.Is(err, ErrRefused) {
			return errors.Join(err, broker.Kill())
		}
	}
	if err := broker.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	return account.SyncPath(f.Data)
}

// onlyListener returns a configuration with the first of its listeners alone, at address.
func onlyListener(conf, address string) (string, error) {
	before, listeners, found := strings.Cut(conf, "\nlistener ")
	if !found {
		return "", errors.New("mosquitto.conf has no listener")
	}
	first, _, _ := strings.Cut(listeners, "\nlistener ")
	_, rest, _ := strings.Cut(first, "\n")
	return before + "\nlistener " + address + "\n" + rest, nil
}
