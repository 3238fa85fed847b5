package decoder

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
)

// replayTimeout bounds one request.
const replayTimeout = 10 * time.Second

// takeReplays decodes messages of dead letters again, with the metadata of now, for the console: it may
// not write to streams. It ends with ctx.
func (d *Decoder) takeReplays(ctx context.Context, pool *pgxpool.Pool) error {
	return probe.Serve(ctx, d.streams.JetStream().Conn(), stage, replay.Subject, replayTimeout, func(ctx context.Context, data []byte) (any, error) {
		return d.replayOne(ctx, pool, data)
	})
}

func (d *Decoder) replayOne(ctx context.Context, pool *pgxpool.Pool, data []byte) (replay.LetterAnswer, error) {
	var r replay.LetterRequest
	if err := json.Unmarshal(data, &r); err != nil || r.Letter == 0 || r.Person == "" {
		return replay.LetterAnswer{}, probe.RefusedError{Err: errors.New("a replay needs a letter and the person who wants it")}
	}
	again, err := NewRedecoder(d.cfg, pool)
	if err != nil {
		return replay.LetterAnswer{}, err
	}
	answer, err := r.Serve(ctx, d.streams, again, d.incarnation)
	if err == nil {
		d.log.Info("a dead letter is replayed", "letter", r.Letter, "removed", r.Remove, "person", r.Person)
	}
	return answer, err // who asked logs it
}
