package console

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/message/event"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/probe"
	"github.com/f2mesh/f2mesh/pkg/operate/replay"
	"github.com/f2mesh/f2mesh/pkg/stream"
	"github.com/f2mesh/f2mesh/pkg/stream/deadletter"
)

type lettersPage struct {
	Query         string
	Stage, Reason choices
	Shown         []deadletter.Stored
	pager

	found []deadletter.Stored
}

func (*lettersPage) title() string { return "Dead letters" }

func (*lettersPage) commands() []string {
	return []string{"f2mesh dead list --letters", "nats stream view DEAD_LETTER", "f2mesh dead replay --dry-run"}
}

func (p *lettersPage) rows() [][]string {
	all := [][]string{{"letter", "stage", "reason", "mac", "refused", "topic", "detail"}}
	for i := range p.found {
		l := &p.found[i]
		all = append(all, []string{strconv.FormatUint(l.Sequence, 10), l.Stage, l.Reason, string(l.MAC), stamp(l.Stored), l.Topic, l.Detail})
	}
	return all
}

func (c *Console) serveLetters(w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	p := &lettersPage{
		Query:  strings.TrimSpace(r.FormValue("q")),
		Stage:  choices{"stage", "Stage", r.FormValue("stage"), []string{stream.StageBridge, stream.StageDecoder, stream.StageWriter}},
		Reason: choices{Name: "reason", Label: "Reason", Chosen: r.FormValue("reason")},
	}
	sought := strings.ToLower(p.Query)
	sees := c.seesLetters(s)
	err := tail(ctx, c.from.Streams.JetStream(), stream.DeadLetter, "f2.dead.>", maxScanned, func(m *jetstream.RawStreamMsg) error {
		l := deadletter.Parse(&stream.Message{Subject: m.Subject, Header: m.Header, Sequence: m.Sequence, Time: m.Time})
		if l.Removed || l.Counted() || !sees(l.MAC) {
			return nil
		}
		if !slices.Contains(p.Reason.All, l.Reason) {
			p.Reason.All = append(p.Reason.All, l.Reason)
		}
		if (p.Stage.Chosen == "" || l.Stage == p.Stage.Chosen) && (p.Reason.Chosen == "" || l.Reason == p.Reason.Chosen) &&
			contains(sought, string(l.MAC), l.Topic, l.Detail) {
			p.found = append(p.found, l)
		}
		return nil
	})
	if err != nil {
		c.unavailable(w, r, s, "DEAD_LETTER", err)
		return
	}
	slices.Sort(p.Reason.All)
	slices.Reverse(p.found)
	if asCSV(w, r, "dead-letters", p) {
		return
	}
	p.Shown, p.pager = paged(r, p.found)
	c.show(w, r, s, "letters", p)
}

// seesLetters returns what tells whether somebody may look at the letters of a controller.
func (c *Console) seesLetters(s *session) func(topic.MAC) bool {
	known := map[topic.MAC]bool{}
	return func(mac topic.MAC) bool {
		ok, asked := known[mac]
		if !asked {
			ok, _ = c.allowed(s, rightOn(mac, access.View), access.Place{MAC: mac, Name: c.fleet.name(mac)})
			known[mac] = ok
		}
		return ok
	}
}

// rightOn is what somebody must be allowed to for a letter: those of nobody's are for who
// administers the mesh.
func rightOn(mac topic.MAC, right access.Right) access.Right {
	if mac == "" {
		return access.Administer
	}
	return right
}

type letterPage struct {
	deadletter.Stored
	Text    string // the letter, its message and what that decodes to now
	Problem string
	// MayReveal is set if something is hidden that the person may see.
	MayReveal bool
	OnRaw     bool // its message is there, or was
	MayReplay bool
}

func (p *letterPage) title() string { return "Dead letter " + strconv.FormatUint(p.Sequence, 10) }

func (p *letterPage) commands() []string {
	n := strconv.FormatUint(p.Sequence, 10)
	replayed := "f2mesh dead replay --dry-run --stage " + p.Stage + " --reason " + p.Reason
	if p.MAC != "" {
		replayed += " --mac " + string(p.MAC)
	}
	return []string{"f2mesh dead show " + n, "nats stream get DEAD_LETTER " + n, replayed}
}

// hidden is in the text of a letter whose payload may be personal.
const hidden = "which may be personal: --reveal shows them"

// letterOf reads the letter in the address of a page and decodes its message, if somebody has that right
// on it. Otherwise the answer says so. A letter may come with the problem of its message.
func (c *Console) letterOf(ctx context.Context, w http.ResponseWriter, r *http.Request, s *session, right access.Right) (m *replay.Replayer, shown *replay.Shown, problem error) {
	sequence, err := strconv.ParseUint(r.PathValue("letter"), 10, 64)
	if err != nil || sequence == 0 {
		c.fail(w, r, s, http.StatusNotFound, "A dead letter has a number.")
		return nil, nil, nil //nolint:nilerr // the browser has it
	}
	decoder, err := c.from.Decoder()
	if err != nil {
		c.unavailable(w, r, s, "The metadata", err)
		return nil, nil, nil
	}
	m = &replay.Replayer{Streams: c.from.Streams, Decoder: decoder, Log: c.log}
	shown, err = m.Show(ctx, sequence)
	if shown == nil {
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			c.fail(w, r, s, http.StatusNotFound, "There is no dead letter of this number any more.")
		} else {
			c.unavailable(w, r, s, "This dead letter", err)
		}
		return nil, nil, nil
	}
	if !c.require(w, r, s, rightOn(shown.Letter.MAC, right), c.placeOf(shown)) {
		return nil, nil, nil
	}
	return m, shown, err
}

func (c *Console) placeOf(l *replay.Shown) access.Place {
	return access.Place{MAC: l.Letter.MAC, Name: c.fleet.name(l.Letter.MAC)}
}

// serveLetter shows one letter with the bytes of its message's frame against the data points.
func (c *Console) serveLetter(w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	_, shown, err := c.letterOf(ctx, w, r, s, access.View)
	if shown == nil {
		return
	}
	sequence := shown.Letter.Sequence
	mayReplay, _ := c.allowed(s, rightOn(shown.Letter.MAC, access.Replay), c.placeOf(shown))
	reveal := mayReplay && r.FormValue("reveal") != ""
	p := &letterPage{Stored: shown.Letter, OnRaw: shown.Letter.ID != event.ID{}, MayReplay: mayReplay}
	if err != nil {
		c.log.Warn("a part of a page cannot be read", "path", r.URL.Path, "error", err)
		p.Problem = "Its message cannot be read or decoded now."
	}
	if shown.Reveal = reveal; reveal {
		c.log.Info("somebody looks at a payload that may be personal", "person", s.person.Name, "letter", sequence)
	}
	var b bytes.Buffer
	_, _ = shown.WriteTo(&b) // into memory
	p.Text = b.String()
	p.MayReveal = mayReplay && strings.Contains(p.Text, hidden)
	c.show(w, r, s, "letter", p)
}

// replayTimeout bounds a replay, which waits for the writer.
const replayTimeout = 20 * time.Second

type replayPage struct {
	letterPage
	Result string // what became of the letter
	Good   bool
}

func (p *replayPage) title() string {
	return "Replay of dead letter " + strconv.FormatUint(p.Sequence, 10)
}

// replayLetter tries a letter once more: the decoder stores what its message decodes to now, and removes
// the letter once the tables have the rows.
func (c *Console) replayLetter(w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithTimeout(r.Context(), replayTimeout)
	defer cancel()
	m, shown, err := c.letterOf(ctx, w, r, s, access.Replay)
	if shown == nil {
		return
	}
	c.allowTime(w, replayTimeout)
	p := &replayPage{letterPage: letterPage{Stored: shown.Letter}}
	if err == nil {
		m.Tables, err = replay.NewTables(ctx, c.from.Readings)
	}
	var out *replay.Replayed
	if err == nil {
		out, err = m.ReplayOne(ctx, shown.Letter, s.person.Name, func(ctx context.Context, request *nats.Msg) (*nats.Msg, error) {
			return c.ask(ctx, request, readTimeout)
		})
	}
	if err != nil {
		c.log.Warn("a dead letter was not replayed", "person", s.person.Name, "letter", p.Sequence, "error", err)
	}
	if _, refused := errors.AsType[probe.RefusedError](err); refused {
		p.Problem = "Not replayed: " + err.Error() + "."
	} else if err != nil {
		p.Problem = "It may be replayed only in part: " + err.Error() + ". The letter stays until the tables have its rows, so try again."
	} else {
		var b bytes.Buffer
		_, _ = out.WriteTo(&b) // into memory
		p.Result, p.Good = b.String(), out.Accepted > 0
	}
	c.show(w, r, s, "replay", p)
}
