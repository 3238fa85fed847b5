package alarm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/alert"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// PeopleCommands are what people do with alarms.
type PeopleCommands struct {
	List   ListCommand   `cmd:"" help:"List alarms that are raised or that nobody has acknowledged."`
	Show   ShowCommand   `cmd:"" help:"Show an alarm and its history."`
	Ack    AckCommand    `cmd:"" help:"Acknowledge alarms: you have seen them."`
	Shelve ShelveCommand `cmd:"" help:"Notify nobody of an alarm for a while."`
	Test   TestCommand   `cmd:"" help:"Have the alarm service send a test notification to a receiver."`
	Rules  RulesCommand  `cmd:"" help:"Check a file of rules and list them."`
	Run    Process       `cmd:"" help:"Run the alarm service: evaluate rules on DECODED."`
}

// stored is an alarm's entry with its place in ALARM.
type stored struct {
	alert.Entry
	seq uint64
}

// MarshalJSON adds the short name to the entry.
func (s stored) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Handle string `json:"handle"`
		ID     string `json:"id"`
		alert.Entry
	}{s.Handle(), s.ID(), s.Entry})
}

// current reads the last entry of every alarm, the newest change first.
func current(ctx context.Context, js jetstream.JetStream) (all []stored, err error) {
	byID := map[string]stored{}
	err = stream.Scan{Stream: stream.Alarm}.Read(ctx, js, func(m *stream.Message) error {
		if e, err := alert.Parse(m.Data); err == nil {
			byID[e.ID()] = stored{e, m.Sequence}
		}
		return nil
	})
	for _, s := range byID {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b stored) int { return cmp.Compare(b.seq, a.seq) })
	return all, err
}

// ListCommand lists alarms.
type ListCommand struct {
	All      bool   `help:"Also alarms that are pending, cleared or acknowledged."`
	Severity string `help:"Only alarms of this severity." enum:",info,warning,critical" default:""`
	Rule     string `help:"Only alarms of this rule."`
	JSON     bool   `help:"Print JSON."`
}

// Run prints one alarm a line.
func (c *ListCommand) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	all, err := current(ctx, m.JetStream)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(s stored) bool {
		return !c.All && !s.Open() || c.Severity != "" && string(s.Severity) != c.Severity || c.Rule != "" && s.Rule != c.Rule
	})
	if c.JSON {
		return plain.PrintJSON(all)
	}
	return writeAlarms(os.Stdout, all, time.Now())
}

func writeAlarms(out io.Writer, all []stored, now time.Time) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no alarm")
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, plain.Row("ALARM", "SEVERITY", "STATUS", "SINCE", "WHAT", "WHERE", "SEEN BY"))
	for i := range all {
		s := &all[i]
		fmt.Fprint(table, plain.Row(s.Handle(), string(s.Severity), status(&s.Entry, now), local(cmp.Or(s.RaisedAt, s.Since)), cmp.Or(s.Rule, s.Kind), where(&s.Entry), seenBy(&s.Entry)))
	}
	return table.Flush()
}

func status(e *alert.Entry, now time.Time) string {
	if e.Quiet(now) {
		return string(e.Status) + ", shelved until " + local(e.Shelved.Until)
	}
	return string(e.Status)
}

func where(e *alert.Entry) string {
	if e.Rule == "" {
		return e.Service + " " + e.About
	}
	text := fmt.Sprintf("%s J%d %s", e.MAC, e.Connector, e.Component)
	if e.Device != "" {
		text += " (" + e.Device + ")"
	}
	return text
}

func seenBy(e *alert.Entry) string {
	if e.Acknowledged == nil {
		return "-"
	}
	return strings.TrimSuffix(e.Acknowledged.By+": "+e.Acknowledged.Comment, ": ")
}

func local(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// find returns the alarm with that id, or the only one whose short name begins so.
func find(all []stored, text string) (*stored, error) {
	var found []*stored
	for i := range all {
		s := &all[i]
		if s.ID() == text {
			return s, nil
		}
		if len(text) >= 4 && strings.HasPrefix(s.Handle(), text) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("no alarm %q: `f2mesh alarm list --all` lists them", text)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%q is the beginning of %d alarms' names: write more of it", text, len(found))
}

// ShowCommand shows one alarm.
type ShowCommand struct {
	Alarm string `arg:"" help:"The alarm, as list shows it."`
	JSON  bool   `help:"Print JSON, one entry after the other."`
}

// Run prints the alarm's entries, oldest first.
func (c *ShowCommand) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	all, err := current(ctx, m.JetStream)
	if err != nil {
		return err
	}
	one, err := find(all, c.Alarm)
	if err != nil {
		return err
	}
	var entries []stored
	err = stream.Scan{Stream: stream.Alarm, Subjects: []string{one.Subject()}}.Read(ctx, m.JetStream, func(m *stream.Message) error {
		e, err := alert.Parse(m.Data)
		if len(entries) == 0 || m.Header.Get(alert.HeaderKept) == "" {
			entries = append(entries, stored{e, m.Sequence})
		}
		return err
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return plain.PrintJSON(entries)
	}
	return writeHistory(os.Stdout, entries)
}

func writeHistory(out io.Writer, entries []stored) error {
	last := &entries[len(entries)-1]
	fmt.Fprintf(out, "%s  %s\n%s\n%s\n\n", last.Handle(), plain.Text(last.ID()), plain.Text(last.Summary), plain.Text(where(&last.Entry)))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, plain.Row("TIME", "STATUS", "SEEN BY", "DETAIL"))
	for i := range entries {
		e := &entries[i].Entry
		fmt.Fprint(table, plain.Row(local(e.Time), status(e, e.Time), seenBy(e), e.Detail))
	}
	return table.Flush()
}

// AckCommand acknowledges alarms.
type AckCommand struct {
	Alarm   []string `arg:"" help:"Alarms, as list shows them."`
	Comment string   `help:"What you found or do." short:"c"`
}

// Run acknowledges one after the other, in the name of the person.
func (c *AckCommand) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	return change(ctx, st, c.Alarm, log, alert.ChangeRequest{Action: alert.Acknowledge, Comment: c.Comment})
}

// ShelveCommand shelves alarms.
type ShelveCommand struct {
	Alarm   []string      `arg:"" help:"Alarms, as list shows them."`
	For     time.Duration `help:"How long." default:"8h"`
	Comment string        `help:"Why." short:"c"`
	End     bool          `help:"Notify again from now on."`
}

// Run shelves one after the other.
func (c *ShelveCommand) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	r := alert.ChangeRequest{Action: alert.Shelve, Comment: c.Comment, Seconds: int(c.For.Seconds())}
	if c.End {
		r.Action = alert.Unshelve
	}
	return change(ctx, st, c.Alarm, log, r)
}

// change makes the same change of alarms that people name.
func change(ctx context.Context, st mesh.State, names []string, log *slog.Logger, r alert.ChangeRequest) error {
	r.Person = access.Caller()
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	all, err := current(ctx, m.JetStream)
	if err != nil {
		return err
	}
	policy, err := access.Load(st.Path(access.FileName))
	if err != nil {
		return err
	}
	for _, name := range names {
		one, err := find(all, name)
		if err == nil {
			err = permitted(policy, r.Person, &one.Entry)
		}
		if err != nil {
			return err
		}
		r.ID = one.ID()
		next, err := askForChange(ctx, m.JetStream.Conn(), &r)
		if err != nil {
			return fmt.Errorf("alarm %s: %w", name, err)
		}
		fmt.Printf("%s %s: %s\n", next.Handle(), plain.Text(next.ID()), status(&next, time.Now()))
	}
	return nil
}

// permitted returns an error unless the access file lets the person acknowledge and shelve the
// alarm. The alarm of a service is about the mesh.
func permitted(policy *access.Policy, person string, e *alert.Entry) error {
	var place access.Place
	if e.MAC != "" {
		t, err := e.Topic()
		if err != nil {
			return err
		}
		place = access.PlaceOf(t, "")
	}
	if ok, why := policy.Allowed(person, access.Acknowledge, place); !ok {
		return errors.New(why)
	}
	return nil
}

// TestCommand tests a receiver.
type TestCommand struct {
	Receiver string `arg:"" help:"Name of the receiver, as in the rules."`
}

// Run prints the result.
func (c *TestCommand) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	bounded, cancel := context.WithTimeout(ctx, 2*sendTimeout)
	defer cancel()
	reply, err := m.JetStream.Conn().RequestWithContext(bounded, TestSubject, []byte(c.Receiver))
	if err != nil {
		return fmt.Errorf("asking the alarm service: %w", err)
	}
	if result := string(reply.Data); result != "delivered" {
		return fmt.Errorf("receiver %s: %s", c.Receiver, result)
	}
	fmt.Printf("%s has accepted a test notification\n", plain.Text(c.Receiver))
	return nil
}

// RulesCommand checks rules.
type RulesCommand struct {
	File string `arg:"" optional:"" help:"File of rules. Default: the built-in rules." type:"existingfile"`
}

// Run prints the rules, or what is wrong with the file.
func (c *RulesCommand) Run() error {
	f := rulesFile{path: c.File}
	if _, err := f.read(); err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprint(table, plain.Row("RULE", "SEVERITY", "COMPONENTS", "CONDITION"))
	for _, r := range f.current.Rules {
		fmt.Fprint(table, plain.Row(r.Name, string(r.Severity), cmp.Or(strings.Join(r.Component, " "), "all"), r.condition()))
	}
	return table.Flush()
}

func (r *Rule) condition() string {
	switch {
	case r.Absent.intervals > 0:
		return fmt.Sprintf("no message for %d intervals", r.Absent.intervals)
	case r.Absent.given():
		return "no message for " + r.Absent.after.String()
	case r.For > 0:
		return r.When + " for " + time.Duration(r.For).String()
	}
	return r.When
}
