package console

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// perPage is how many rows a page of a table has.
const perPage = 50

type fleetPage struct {
	Query, Order string
	State        choices
	Counts       map[string]int
	All          int
	Shown        []device
	At           time.Time
	pager

	found []device
}

func (*fleetPage) title() string { return "Fleet" }

func (*fleetPage) commands() []string {
	return []string{"f2mesh device list", "nats kv ls LATEST", "f2mesh tail"}
}

func (p *fleetPage) rows() [][]string {
	all := [][]string{{"mac", "name", "serial_number", "state", "last_heard", "certificate_expires"}}
	for i := range p.found {
		d := &p.found[i]
		all = append(all, []string{string(d.MAC), d.Name, d.Serial, d.State(p.At), stamp(d.Seen), stamp(d.Expires)})
	}
	return all
}

func (c *Console) serveFleet(w http.ResponseWriter, r *http.Request, s *session) {
	all, err := c.fleet.devices(r.Context())
	if err != nil {
		c.unavailable(w, r, s, "The fleet", err)
		return
	}
	sees := c.sees(s)
	all = slices.DeleteFunc(all, func(d device) bool { return !sees(&d) })
	p := &fleetPage{
		Query: strings.TrimSpace(r.FormValue("q")), Order: r.FormValue("order"), At: time.Now(), All: len(all),
		State: choices{"state", "State", r.FormValue("state"), stateNames()},
	}
	p.Counts = states(all, p.At)
	p.found = p.choose(all)
	if asCSV(w, r, "fleet", p) {
		return
	}
	p.Shown, p.pager = paged(r, p.found)
	c.show(w, r, s, "fleet", p)
}

// choose returns the controllers that the page's filter chooses, in its order.
func (p *fleetPage) choose(all []device) []device {
	sought := strings.ToLower(p.Query)
	bare := strings.NewReplacer(":", "", "-", "").Replace(sought)
	found := slices.DeleteFunc(all, func(d device) bool {
		switch p.State.Chosen {
		case "":
		case stateExpiring:
			if !d.ExpiresSoon(p.At) {
				return true
			}
		case d.State(p.At):
		default:
			return true
		}
		return !contains(sought, d.Name, d.Serial) && !contains(bare, string(d.MAC))
	})
	switch p.Order {
	case "name":
		slices.SortStableFunc(found, func(x, y device) int { return cmp.Compare(strings.ToLower(x.Name), strings.ToLower(y.Name)) })
	case "heard":
		slices.SortStableFunc(found, func(x, y device) int { return x.Seen.Compare(y.Seen) })
	case "expires":
		slices.SortStableFunc(found, func(x, y device) int { return x.Expires.Compare(y.Expires) })
	}
	return found
}

// pager is which page of a table is shown.
type pager struct {
	Found, Page, Pages int
	Previous, Next     string // addresses, "" where there is none
}

// paged returns the rows of the page that somebody asks for.
func paged[T any](r *http.Request, found []T) (shown []T, p pager) {
	p = pager{Found: len(found), Pages: max(1, (len(found)+perPage-1)/perPage)}
	p.Page, _ = strconv.Atoi(r.FormValue("page"))
	p.Page = min(max(p.Page, 1), p.Pages)
	p.Previous, p.Next = around(r, p.Page, p.Pages)
	from := (p.Page - 1) * perPage
	return found[from:min(from+perPage, len(found))], p
}

// around are the addresses of the pages before and after.
func around(r *http.Request, number, pages int) (previous, next string) {
	if number > 1 {
		previous = with(r.URL, "page", strconv.Itoa(number-1))
	}
	if number < pages {
		next = with(r.URL, "page", strconv.Itoa(number+1))
	}
	return previous, next
}
