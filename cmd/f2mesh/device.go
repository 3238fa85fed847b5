package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/topic"
)

type deviceCommands struct {
	List   deviceListCommand   `cmd:"" help:"List the controllers that have a certificate."`
	Export deviceExportCommand `cmd:"" help:"Copy a controller's certificate bundle: device.crt, device.key, ca.crt, mqtt_config.json."`
	Log    deviceLogCommand    `cmd:"" help:"Show the audit trail: who issued, renewed, revoked or rotated what, and who was refused."`
}

type deviceListCommand struct{}

// Run prints one MAC a line.
func (deviceListCommand) Run(g *globals) error {
	macs, err := state{dir: g.StateDir}.registered()
	for _, mac := range macs {
		fmt.Println(mac.Dashed())
	}
	return err
}

type deviceExportCommand struct {
	MAC string `arg:"" help:"MAC address, in any spelling."`
	To  string `help:"Directory to write to; made if missing, never overwritten. Default: <MAC> in the current one." type:"path"`
}

// Run copies the bundle; the key's file keeps mode 600.
func (c *deviceExportCommand) Run(g *globals) error {
	mac, err := topic.ParseMAC(c.MAC)
	if err != nil {
		return fmt.Errorf("%q is not a MAC address: 12 hex digits, bare or with - or : between bytes", c.MAC)
	}
	from := filepath.Join(state{dir: g.StateDir}.devices(), mac.Dashed())
	if c.To == "" {
		c.To = mac.Dashed()
	}
	if err := os.MkdirAll(c.To, 0o700); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	for _, name := range []string{"device.crt", "device.key", "ca.crt", "mqtt_config.json"} {
		data, err := os.ReadFile(filepath.Join(from, name)) //nolint:gosec // a file of the state directory
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s has no certificate here: `f2mesh device list` shows those that have", mac.Dashed())
		}
		if err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if err := writeNew(filepath.Join(c.To, name), data); err != nil {
			return err
		}
	}
	fmt.Println(c.To)
	return nil
}

func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator names the directory
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists already: remove it or export --to another directory", path)
	}
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return fmt.Errorf("exporting: %w", err)
	}
	return f.Close()
}
