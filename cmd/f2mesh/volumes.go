package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/term"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/volume"
	"github.com/f2mesh/f2mesh/pkg/server/mosquitto"
)

type volumesCommands struct {
	Save volumesSaveCommand `cmd:"" help:"Write the volumes' contents to standard output, unencrypted."`
	Load volumesLoadCommand `cmd:"" help:"Fill empty volumes from standard input."`
}

type VolumesFolder struct {
	Volumes string `help:"Directory in which each volume of compose.yaml is mounted under its name." default:"/volumes" type:"existingdir"`
}

// names are the volumes that hold data: the program is put there at each start, and
// which broker runs is nothing to keep.
func (c *VolumesFolder) names() ([]string, error) {
	entries, err := os.ReadDir(c.Volumes)
	if err != nil {
		return nil, fmt.Errorf("looking for the volumes: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && !slices.Contains([]string{"program", "mosquitto-run"}, e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// still refuses volumes whose servers run: their files would not fit each other.
func (c *VolumesFolder) still() error {
	if err := c.Complete(); err != nil {
		return err
	}
	for _, server := range []string{"postgres", "timescaledb"} {
		if mesh.Exists(filepath.Join(c.Volumes, server+"-data", "pgdata", "postmaster.pid")) {
			return fmt.Errorf("the server %s runs, or was killed: let it start and stop in order first", server)
		}
	}
	if mosquitto.Attended(filepath.Join(c.Volumes, "mosquitto-run")) {
		return errors.New("the broker runs: stop all containers first")
	}
	return nil
}

type volumesSaveCommand struct {
	VolumesFolder
	DryRun bool `help:"Only show the contents. Servers may be running."`
}

// Run is in a container of its own, and is what no other may be: with all volumes. It
// has no key. Who reads the stream encrypts it.
func (c *volumesSaveCommand) Run(ctx context.Context) error {
	names, err := c.names()
	if err != nil {
		return err
	}
	if c.DryRun {
		return c.measure(ctx, names)
	}
	if term.IsTerminal(int(os.Stdout.Fd())) {
		return errors.New("refusing to print unencrypted secrets to a terminal: use f2mesh backup --compose")
	}
	if err := c.still(); err != nil {
		return err
	}
	saved, err := volume.Save(ctx, c.Volumes, names, os.Stdout)
	if err != nil {
		return err
	}
	return describeVolumes(os.Stderr, saved)
}

func (c *volumesSaveCommand) measure(ctx context.Context, names []string) error {
	measured, err := volume.Measure(ctx, c.Volumes, names)
	if err != nil {
		return err
	}
	return describeVolumes(os.Stderr, measured)
}

// describeVolumes refuses what is nothing.
func describeVolumes(out io.Writer, all []volume.Volume) error {
	var files int
	for _, v := range all {
		files += v.Files
		fmt.Fprintf(out, "  volume %-20s %6d files  %s\n", v.Name, v.Files, mesh.Size(v.Bytes))
	}
	if files == 0 {
		return errors.New("the volumes are empty: they contain no mesh")
	}
	return nil
}

type volumesLoadCommand struct{ VolumesFolder }

// Run fills the volumes of a mesh that was never started.
func (c *volumesLoadCommand) Run(ctx context.Context) error {
	names, err := c.names()
	if err != nil {
		return err
	}
	loaded, err := volume.Load(ctx, c.Volumes, names, os.Stdin)
	if errors.Is(err, volume.ErrOccupied) {
		return fmt.Errorf("%w: a mesh may be in it; back it up, and remove it with `./task compose:down -- --volumes`", err)
	}
	if err != nil {
		return err
	}
	return describeVolumes(os.Stderr, loaded)
}

// Complete refuses volumes that a restore was to fill when it was killed.
func (c *VolumesFolder) Complete() error {
	if volume.Incomplete(c.Volumes) {
		return errors.New("a restore into these volumes broke off: `./task compose:down -- --volumes`, and restore again")
	}
	return nil
}
