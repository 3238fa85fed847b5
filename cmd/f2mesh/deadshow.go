package main

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/services/decoder"
)

type deadShowCommand struct {
	Letter uint64 `arg:"" help:"Number of the dead letter, as f2mesh dead list --letters shows it."`
	Reveal bool   `help:"Show the payload even if it may be personal: the data of a card reader, or of an unknown topic."`
}

// Run prints the letter, the message and what it decodes to now.
func (c *deadShowCommand) Run(ctx context.Context, g *globals, log *slog.Logger) error {
	m, err := mesh.Open(ctx, g.state(), log)
	if err != nil {
		return err
	}
	defer m.Close()
	r, err := decoder.OpenReplay(ctx, m, log)
	if err != nil {
		return err
	}
	defer r.Close()
	shown, err := r.Show(ctx, c.Letter)
	if shown == nil {
		return err
	}
	shown.Reveal = c.Reveal
	_, printErr := shown.WriteTo(os.Stdout)
	return errors.Join(err, printErr)
}

var _ replay.MetadataDecoder = (*decoder.Redecoder)(nil)
