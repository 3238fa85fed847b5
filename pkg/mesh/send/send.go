// Package send is the command `f2mesh command`: it sends commands to controllers of a running
// mesh and prints their outcomes.
package send

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	natsfiles "github.com/f2mesh/f2mesh/nats"
	"github.com/f2mesh/f2mesh/pkg/mesh"
	"github.com/f2mesh/f2mesh/pkg/message/topic"
	"github.com/f2mesh/f2mesh/pkg/operate/access"
	"github.com/f2mesh/f2mesh/pkg/operate/command"
	"github.com/f2mesh/f2mesh/pkg/operate/plain"
	"github.com/f2mesh/f2mesh/pkg/operate/progress"
	"github.com/f2mesh/f2mesh/pkg/stream"
)

// Send is the command line of `f2mesh command`.
type Send struct {
	MAC       string `arg:"" optional:"" help:"Controller (MAC address in any notation)."`
	Connector string `arg:"" optional:"" help:"Connector: J1 to J4, or 0 to 99."`
	Component string `arg:"" optional:"" help:"Component: strike-1, siren-1, reader-1, sensor-1, door-sensors, …"`

	Mode    string        `help:"Mode of the connector: sensor-mode, access-control-mode or alarm-mode. Default: the usual one of such a component."`
	Power   string        `help:"on, off, or for a strike toggle: the bridge turns it into on or off by the last report. Default: request the component's state." enum:",on,off,toggle" default:""`
	Period  int           `help:"Seconds that a strike stays on (1 to 255). Default: until the next command."`
	ID      string        `help:"Makes the command idempotent: if the id was used before, the outcome of that command is printed and nothing is sent."`
	Wait    bool          `help:"If a controller is not connected, let the command wait at the broker until it expires. Otherwise it is refused."`
	As      string        `help:"Person who sends the command, for access.yaml and the audit trail. Default: the user of the operating system."`
	Timeout time.Duration `help:"Maximum time to wait for an outcome." default:"45s"`
	JSON    bool          `help:"Print JSON."`

	AllMatching string    `help:"Send to all known components that match, instead of one: mode=access-control-mode,component=strike-*. Keys: mac, mode, connector, component." placeholder:"KEY=PATTERN,…" group:"Many components"`
	Site        string    `help:"Only controllers of this site of access.yaml." group:"Many components"`
	Rate        perSecond `help:"Commands a second." default:"10/s" group:"Many components"`
	MaxFailures int       `help:"Send no more after this many failures." default:"3" group:"Many components"`
	DryRun      bool      `help:"Only show what would be sent." group:"Many components"`
	Yes         bool      `help:"Do not ask." group:"Many components"`
}

// perSecond is a rate such as 10/s.
type perSecond float64

// UnmarshalText reads a rate, also without /s.
func (r *perSecond) UnmarshalText(text []byte) error {
	n, err := strconv.ParseFloat(strings.TrimSuffix(string(text), "/s"), 64)
	if err != nil || n <= 0 || n > 1000 {
		return fmt.Errorf("%q: it must be 0 to 1000 commands a second, such as 10/s", text)
	}
	*r = perSecond(n)
	return nil
}

// Help is the rest of --help.
func (*Send) Help() string {
	return `Examples:
  f2mesh command e4:fd:45:f6:54:be J3 strike-1 --power on --period 5
  f2mesh command e4fd45f654be 3 strike-1                # its state
  f2mesh command --all-matching 'mode=access-control-mode,component=strike-*' --site north --power on

A command is sent once, and its outcome printed: confirmed (the controller reported the state),
delivered (it reported nothing), refused, expired, or unknown (it may have been carried out).

Exit status: 0 confirmed or delivered; 3 refused or expired, which includes not allowed; 4 unknown,
or no outcome within --timeout; 1 not sent because of an error.`
}

// Run sends, prints the outcomes, and returns a *command.FailureError unless all is done.
func (c *Send) Run(ctx context.Context, st mesh.State, log *slog.Logger) error {
	if err := c.validate(); err != nil {
		return err
	}
	policy, err := access.Load(st.Path(access.FileName))
	if err != nil {
		return err
	}
	m, err := mesh.Open(ctx, st, log)
	if err != nil {
		return err
	}
	defer m.Close()
	streams, err := stream.NewClient(m.JetStream.Conn(), natsfiles.Files, log)
	if err != nil {
		return err
	}
	var names map[topic.MAC]string
	if policy.Restricted() {
		if names, err = controllerNames(ctx, m); err != nil {
			log.Warn("the names of controllers are not known: selectors by name match nothing", "error", err)
		}
	}
	sender := command.NewSender(streams, func() *access.Policy { return policy })
	if c.AllMatching != "" || c.Site != "" {
		return c.many(ctx, m, sender, policy, names)
	}
	place, err := command.Place(c.MAC, c.Mode, c.Connector, c.Component)
	if err != nil {
		return err
	}
	return c.one(ctx, sender, place, names)
}

func (c *Send) validate() error {
	switch many := c.AllMatching != "" || c.Site != ""; {
	case many && c.MAC != "":
		return errors.New("name one component, or give --all-matching or --site")
	case many && c.Mode != "":
		return errors.New("--mode is for one component; with --all-matching write mode=…")
	case !many && c.Component == "":
		return errors.New("name the controller, the connector and the component, such as e4fd45f654be J3 strike-1")
	case !many && (c.DryRun || c.Yes):
		return errors.New("--dry-run and --yes are for --all-matching and --site")
	case many && c.Power == "toggle":
		return errors.New("--power toggle is for one component: of many, some would go on and some off")
	case c.MaxFailures < 1:
		return errors.New("--max-failures must be at least 1")
	}
	return nil
}

// order is the command for a component. Under an id, each component has one of its own.
func (c *Send) order(place topic.Topic, id string, names map[topic.MAC]string) (command.Order, error) {
	body, err := command.Body(place.Component.Kind, c.Power, c.Period)
	return command.Order{
		Place: place, Body: body, ID: id, Person: cmp.Or(c.As, access.Caller()), Controller: names[place.MAC], Wait: c.Wait,
	}, err
}

func (c *Send) one(ctx context.Context, sender *command.Sender, place topic.Topic, names map[topic.MAC]string) error {
	order, err := c.order(place, c.ID, names)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answer, err := sender.Do(bounded, order)
	if _, pending := errors.AsType[*command.PendingError](err); pending {
		return &command.FailureError{Text: err.Error(), Code: command.ExitUnknown}
	}
	if err != nil {
		return err
	}
	if err := c.print(&answer); err != nil {
		return err
	}
	return answer.Failure()
}

// print prints a result as JSON or for people.
func (c *Send) print(result io.WriterTo) error {
	if !c.JSON {
		_, err := result.WriteTo(os.Stdout)
		return err
	}
	return plain.PrintJSON(result)
}

func (c *Send) many(ctx context.Context, m *mesh.Mesh, sender *command.Sender, policy *access.Policy, names map[topic.MAC]string) error {
	places, err := c.selected(ctx, m, policy, names)
	if err != nil {
		return err
	}
	bulk := command.Bulk{Rate: float64(c.Rate), MaxFailures: c.MaxFailures}
	for _, place := range places {
		id := c.ID
		if id != "" {
			id += "/" + strings.TrimPrefix(place.CommandSubject(), "f2.command.")
		}
		order, err := c.order(place, id, names)
		if err != nil {
			return err
		}
		bulk.Orders = append(bulk.Orders, order)
	}
	if sure, err := c.sure(policy, bulk.Orders); err != nil || !sure {
		return err
	}
	bar := progress.Count("commands")
	bulk.Done = func(done int, line *command.BulkLine) {
		bar.Set(uint64(done), uint64(len(bulk.Orders))) //nolint:gosec // not negative
		if !c.JSON {
			_, _ = line.WriteTo(os.Stdout)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, c.Timeout+time.Duration(float64(len(places))/float64(c.Rate)*float64(time.Second)))
	defer cancel()
	report := sender.DoAll(bounded, bulk)
	bar.Finish()
	if c.JSON {
		if err := plain.PrintJSON(report); err != nil {
			return err
		}
	} else {
		fmt.Printf("%d succeeded, %d failed, %d were not sent\n", report.Succeeded, report.Failed, report.NotSent)
	}
	return report.Failure()
}

// selected returns the components that the flags select, sorted.
func (c *Send) selected(ctx context.Context, m *mesh.Mesh, policy *access.Policy, names map[topic.MAC]string) ([]topic.Topic, error) {
	selection := command.Selection{}
	if c.AllMatching != "" {
		var err error
		if selection, err = command.ParseSelection(c.AllMatching); err != nil {
			return nil, fmt.Errorf("--all-matching: %w", err)
		}
	}
	if c.Site != "" && !slices.Contains(policy.Sites(), c.Site) {
		return nil, fmt.Errorf("--site: %q is not under sites in %s", c.Site, m.State.Path(access.FileName))
	}
	places, err := components(ctx, m.JetStream)
	if err != nil {
		return nil, err
	}
	places = slices.DeleteFunc(places, func(t topic.Topic) bool {
		switchable := t.Component.Kind == topic.Strike || t.Component.Kind == topic.Siren
		return c.Power != "" && !switchable || !selection.Matches(t) || c.Site != "" && !policy.InSite(c.Site, t.MAC, names[t.MAC])
	})
	if len(places) == 0 {
		return nil, errors.New("no component matches; `nats kv ls LATEST` lists those that are known")
	}
	return places, nil
}

// sure lists what will be sent, and asks unless there is no need.
func (c *Send) sure(policy *access.Policy, orders []command.Order) (bool, error) {
	what := cmp.Or(c.Power, "request the state")
	if c.Period > 0 {
		what += fmt.Sprintf(" for %d s", c.Period)
	}
	if c.DryRun || !c.Yes {
		for i := range orders {
			target := access.PlaceOf(orders[i].Place, orders[i].Controller)
			note := ""
			if allowed, why := policy.Allowed(orders[i].Person, access.Command, target); !allowed {
				note = " (will be refused: " + why + ")"
			}
			fmt.Fprintln(os.Stderr, what+": "+target.String()+note)
		}
	}
	if c.DryRun {
		fmt.Fprintf(os.Stderr, "%d commands would be sent\n", len(orders))
		return false, nil
	}
	if c.Yes {
		return true, nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false, fmt.Errorf("%d commands would be sent; --yes sends them without asking", len(orders))
	}
	fmt.Fprintf(os.Stderr, "Send %d commands? [y/N] ", len(orders))
	var reply string
	_, _ = fmt.Scanln(&reply)
	return strings.EqualFold(reply, "y") || strings.EqualFold(reply, "yes"), nil
}
