package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// What the page of alarms can choose, beside those that need somebody.
const (
	alarmsRaised  = "raised"
	alarmsShelved = "shelved"
	alarmsAll     = "all"
)

// shelfHours are what somebody can choose.
var shelfHours = []int{1, 8, 24, 168} //nolint:gochecknoglobals // a constant

// shownAlarm is an alarm as pages show it.
type shownAlarm struct {
	alert.Entry
	Place access.Place // "" for an alarm of the mesh itself
	Quiet bool         // it is shelved now
}

// What says what it is, for people.
func (a *shownAlarm) What() string {
	if a.Rule != "" {
		return a.Rule
	}
	return a.Kind
}

// Where says what it is about.
func (a *shownAlarm) Where() string {
	if a.Rule == "" {
		return strings.TrimSpace(a.Service + " " + a.About)
	}
	return fmt.Sprintf("%s at J%d", a.Component, a.Connector)
}

func shown(e alert.Entry, now time.Time) shownAlarm {
	a := shownAlarm{Entry: e, Quiet: e.Quiet(now)}
	if e.MAC != "" {
		if t, err := e.Topic(); err == nil {
			a.Place = access.PlaceOf(t, "")
		} else {
			a.Place = access.Place{MAC: topic.MAC(e.MAC)}
		}
	}
	return a
}

type alarmsPage struct {
	Query           string
	State, Severity choices
	Shown           []shownAlarm
	pager

	found []shownAlarm
}

func (*alarmsPage) title() string { return "Alarms" }

func (*alarmsPage) commands() []string {
	return []string{"f2mesh alarm list", "nats stream view ALARM", "nats sub 'f2.alarms.state.>'"}
}

func (p *alarmsPage) rows() [][]string {
	all := [][]string{{"alarm", "id", "severity", "status", "raised", "cleared", "what", "mac", "where", "summary", "acknowledged_by", "comment"}}
	for i := range p.found {
		a := &p.found[i]
		row := []string{a.Handle(), a.ID(), string(a.Severity), string(a.Status), stamp(a.RaisedAt), stamp(a.ClearedAt), a.What(), a.MAC, a.Where(), a.Summary, "", ""}
		if a.Acknowledged != nil {
			row[10], row[11] = a.Acknowledged.By, a.Acknowledged.Comment
		}
		all = append(all, row)
	}
	return all
}

// alarmStates holds the last entry of each alarm. ALARM may have 256 MiB of history: it reads on
// from where it read before. It is safe for concurrent use.
type alarmStates struct {
	mu      sync.Mutex
	created time.Time // of the stream
	next    uint64    // sequence to read from
	last    map[string]alarmState
}

type alarmState struct {
	alert.Entry
	sequence uint64
}

// read returns the last entry of each alarm, the newest change first.
func (a *alarmStates) read(ctx context.Context, js jetstream.JetStream) ([]alert.Entry, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	info, err := stream.Find(ctx, js, stream.Alarm)
	if err != nil {
		return nil, err
	}
	if info == nil || !info.Created.Equal(a.created) {
		a.next, a.last = 1, map[string]alarmState{}
	}
	if info == nil {
		return nil, nil
	}
	a.created = info.Created
	err = read(ctx, js, stream.Alarm, alert.Prefix+">", a.next, func(m *jetstream.RawStreamMsg) error {
		if e, err := alert.Parse(m.Data); err == nil {
			a.last[m.Subject] = alarmState{e, m.Sequence}
		}
		a.next = m.Sequence + 1
		return nil
	})
	maps.DeleteFunc(a.last, func(_ string, s alarmState) bool { return s.sequence < info.State.FirstSeq })
	sorted := slices.SortedFunc(maps.Values(a.last), func(x, y alarmState) int { return cmp.Compare(y.sequence, x.sequence) })
	all := make([]alert.Entry, len(sorted))
	for i := range sorted {
		all[i] = sorted[i].Entry
	}
	return all, err
}

func (c *Console) serveAlarms(w http.ResponseWriter, r *http.Request, s *session) {
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	all, err := c.alarms.read(ctx, c.from.Streams.JetStream())
	if err != nil {
		c.unavailable(w, r, s, "ALARM", err)
		return
	}
	p := &alarmsPage{
		Query:    strings.TrimSpace(r.FormValue("q")),
		State:    choices{"state", "State", r.FormValue("state"), []string{alarmsRaised, alarmsShelved, alarmsAll}},
		Severity: choices{"severity", "Severity", r.FormValue("severity"), []string{string(alert.Critical), string(alert.Warning), string(alert.Info)}},
	}
	sought, sees, now := strings.ToLower(p.Query), c.seesLetters(s), time.Now()
	for i := range all {
		a := shown(all[i], now)
		if p.chooses(&a) && contains(sought, a.What(), a.MAC, a.Where(), a.Summary, a.Detail) && (a.MAC == "" || sees(a.Place.MAC)) {
			p.found = append(p.found, a)
		}
	}
	if asCSV(w, r, "alarms", p) {
		return
	}
	p.Shown, p.pager = paged(r, p.found)
	c.show(w, r, s, "alarms", p)
}

func (p *alarmsPage) chooses(a *shownAlarm) bool {
	if p.Severity.Chosen != "" && string(a.Severity) != p.Severity.Chosen {
		return false
	}
	switch p.State.Chosen {
	case alarmsAll:
		return true
	case alarmsShelved:
		return a.Quiet
	case alarmsRaised:
		return a.Active()
	}
	return a.Open()
}

type alarmPage struct {
	shownAlarm
	History []alert.Entry // the newest first
	MayAct  bool
	Hours   []int
	Problem string
}

func (p *alarmPage) title() string { return "Alarm " + p.Handle() }

func (p *alarmPage) commands() []string {
	return []string{"f2mesh alarm show " + p.Handle(), "f2mesh alarm ack " + p.Handle() + " --comment '…'", "nats stream view ALARM --subject '" + p.Subject() + "'"}
}

// alarmOf reads the alarm in the address of a page, if somebody may look at it. Otherwise the answer
// says so.
func (c *Console) alarmOf(w http.ResponseWriter, r *http.Request, s *session) (p *alarmPage, ok bool) {
	id := r.PathValue("alarm")
	if strings.ContainsAny(id, "*> \t\r\n") {
		c.fail(w, r, s, http.StatusNotFound, "There is no such alarm.")
		return nil, false
	}
	ctx, cancel := context.WithTimeout(r.Context(), readTimeout)
	defer cancel()
	p = &alarmPage{Hours: shelfHours}
	err := read(ctx, c.from.Streams.JetStream(), stream.Alarm, alert.Prefix+id, 1, func(m *jetstream.RawStreamMsg) error {
		kept := len(p.History) > 0 && m.Header.Get(alert.HeaderKept) != ""
		if e, err := alert.Parse(m.Data); err == nil && !kept {
			p.History = append(p.History, e)
		}
		return nil
	})
	switch {
	case err != nil:
		c.unavailable(w, r, s, "ALARM", err)
		return nil, false
	case len(p.History) == 0:
		c.fail(w, r, s, http.StatusNotFound, "There is no such alarm, or it ended over 90 days ago.")
		return nil, false
	}
	slices.Reverse(p.History)
	p.shownAlarm = shown(p.History[0], time.Now())
	p.Place.Name = c.fleet.name(p.Place.MAC)
	if p.MAC != "" && !c.require(w, r, s, access.View, access.Place{MAC: p.Place.MAC, Name: p.Place.Name}) {
		return nil, false
	}
	p.MayAct, _ = c.allowed(s, access.Acknowledge, p.Place)
	return p, true
}

func (c *Console) serveAlarm(w http.ResponseWriter, r *http.Request, s *session) {
	if p, ok := c.alarmOf(w, r, s); ok {
		c.show(w, r, s, "alarm", p)
	}
}

// changeAlarm has the alarm service make what somebody asks for.
func (c *Console) changeAlarm(w http.ResponseWriter, r *http.Request, s *session) {
	p, ok := c.alarmOf(w, r, s)
	if !ok || !c.require(w, r, s, access.Acknowledge, p.Place) {
		return
	}
	hours, _ := strconv.Atoi(r.PostFormValue("hours"))
	request := alert.ChangeRequest{
		ID: p.ID(), Action: alert.ChangeAction(r.PostFormValue("action")), Person: s.person.Name, Comment: strings.TrimSpace(r.PostFormValue("comment")),
	}
	if request.Action == alert.Shelve && slices.Contains(shelfHours, hours) {
		request.Seconds = hours * 3600
	}
	data, err := json.Marshal(request)
	if err != nil {
		c.unavailable(w, r, s, "The alarm", err)
		return
	}
	if _, err := c.ask(r.Context(), &nats.Msg{Subject: alert.ChangeSubject, Data: data}, readTimeout); err != nil {
		c.log.Warn("a change of an alarm has no answer or was refused", "person", s.person.Name, "alarm", p.Handle(), "error", err)
		code := http.StatusServiceUnavailable
		p.Problem = "Nobody can say whether it was done: " + err.Error() + ". Look at the history before you try again."
		if refused, ok := errors.AsType[*refusal](err); ok {
			code, p.Problem = refused.code, "Not done: "+err.Error()+"."
		}
		c.write(w, code, "alarm", c.pageOf(r, s, p))
		return
	}
	c.log.Info("an alarm was changed", "person", s.person.Name, "alarm", p.Handle(), "action", string(request.Action))
	http.Redirect(w, r, "/alarms/"+url.PathEscape(p.ID()), http.StatusSeeOther)
}

// refusal is the error of a request that was certainly not carried out.
type refusal struct {
	code int // for the browser
	text string
}

func (e *refusal) Error() string { return e.text }

// allowTime lets an answer take longer than others, by what another service needs for it.
func (c *Console) allowTime(w http.ResponseWriter, more time.Duration) {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(more + readTimeout)); err != nil {
		c.log.Warn("an answer may come too late for the browser", "error", err)
	}
}

// ask sends a request to a service, and returns its answer. The error is a *refusal if nothing was done.
func (c *Console) ask(ctx context.Context, m *nats.Msg, timeout time.Duration) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	reply, err := c.from.Streams.JetStream().Conn().RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, &refusal{http.StatusServiceUnavailable, "the service that does it is not running"}
	case err != nil:
		return nil, fmt.Errorf("the service that does it has not answered in time (%w)", err)
	}
	problem := reply.Header.Get(micro.ErrorHeader)
	switch code := reply.Header.Get(micro.ErrorCodeHeader); {
	case problem == "":
		return reply, nil
	case code == "400":
		return nil, &refusal{http.StatusConflict, problem}
	case code == "503":
		return nil, &refusal{http.StatusServiceUnavailable, problem}
	}
	return nil, errors.New(problem)
}
