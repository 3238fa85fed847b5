package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type deadShowCommand struct {
	Letter uint64 `arg:"" help:"Number of the dead letter, as f2mesh dead list --letters shows it."`
	Reveal bool   `help:"Show the payload even if it may be personal: the data of a card reader, or of an unknown topic."`
}

// Run prints the letter, the message and what it decodes to now.
func (c *deadShowCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	m, err := openReplay(ctx, g, log)
	if err != nil {
		return err
	}
	defer m.Close()
	shown, err := m.mesh.Show(ctx, c.Letter)
	if shown == nil {
		return err
	}
	shown.Reveal = c.Reveal
	_, printErr := shown.WriteTo(os.Stdout)
	return errors.Join(err, printErr)
}

var _ replay.Decoder = (*decoder.Redecoder)(nil)
