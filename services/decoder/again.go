package decoder

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"

	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
)

const (
	// replayGroup has one of several decoders take a request.
	replayGroup = "f2mesh-decoder"
	// replayTimeout bounds one request.
	replayTimeout = 10 * time.Second
)

// takeReplays decodes messages of dead letters again, with the metadata of now, for the console: it may
// not write to streams. It ends with ctx.
func (d *Decoder) takeReplays(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := d.streams.JetStream().Conn().QueueSubscribe(replay.Subject, replayGroup, func(m *nats.Msg) {
		bounded, cancel := context.WithTimeout(ctx, replayTimeout)
		defer cancel()
		reply := &nats.Msg{}
		answer, err := d.replayOne(bounded, pool, m.Data)
		if err == nil {
			reply.Data, err = json.Marshal(answer)
		}
		if _, refused := errors.AsType[replay.RefusedError](err); refused {
			reply.Header = probe.Refusal(http.StatusBadRequest, err)
		} else if err != nil {
			reply.Header = probe.Refusal(http.StatusInternalServerError, err) // it may have been done
		}
		_ = m.RespondMsg(reply) // who asked may be gone
	})
	return err
}

func (d *Decoder) replayOne(ctx context.Context, pool *pgxpool.Pool, data []byte) (replay.LetterAnswer, error) {
	var r replay.LetterRequest
	if err := json.Unmarshal(data, &r); err != nil || r.Letter == 0 || r.Person == "" {
		return replay.LetterAnswer{}, replay.Refused("a replay needs a letter and the person who wants it")
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
