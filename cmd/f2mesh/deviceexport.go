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
	keyless, err := identity.CopyBundle(from, c.To)
	if keyless {
		fmt.Fprintln(os.Stderr, "the key was made on the controller: the bundle is without device.key")
	}
	if err != nil {
		return fmt.Errorf("exporting: %w", err)
	}
	fmt.Println(c.To)
	return nil
}
