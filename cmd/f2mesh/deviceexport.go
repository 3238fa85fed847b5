package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/f2mesh/f2mesh/pkg/identity"
)

type deviceExportCommand struct {
	MAC string `arg:"" help:"MAC address, in any notation."`
	To  string `help:"Output directory. Created if missing; existing files are not overwritten. Default: ./<MAC>." type:"path"`
}

// Run copies the bundle; the key's file keeps mode 600.
func (c *deviceExportCommand) Run(g *globals) error {
	macs, err := parseMACs([]string{c.MAC})
	if err != nil {
		return err
	}
	name := macs[0].Dashed()
	from := filepath.Join(g.state().DevicesDir(), name)
	if _, err := os.Stat(filepath.Join(from, "device.crt")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has no certificate here: `f2mesh device list` shows those that have", name)
	}
	if c.To == "" {
		c.To = name
	}
	if err := os.MkdirAll(c.To, 0o700); err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	for _, file := range identity.BundleFiles() {
		data, err := os.ReadFile(filepath.Join(from, file)) //nolint:gosec // a file of the state directory
		if errors.Is(err, fs.ErrNotExist) && file == "device.key" {
			fmt.Fprintln(os.Stderr, "the key was made on the controller: the bundle is without device.key")
			continue
		}
		if err != nil {
			return fmt.Errorf("exporting: %w", err)
		}
		if err := writeNew(filepath.Join(c.To, file), data); err != nil {
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
