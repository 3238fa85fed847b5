package alarm

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Schedule is when a rule is in force: on some days of the week, from a time to another. A rule
// whose condition holds outside it waits for it.
type Schedule struct {
	Days    patterns `yaml:"days"` // mon, mon-fri; none: every day
	From    string   `yaml:"from"` // "22:00"
	To      string   `yaml:"to"`   // before or equal to from: on the next day
	Zone    string   `yaml:"zone"` // such as Europe/Vienna; empty: UTC
	Outside bool     `yaml:"outside"`

	days     [7]bool
	from, to time.Duration // since midnight
	zone     *time.Location
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} //nolint:gochecknoglobals // a constant

func (s *Schedule) prepare() (err error) {
	if s == nil {
		return nil
	}
	if s.zone, err = time.LoadLocation(s.Zone); err != nil {
		return fmt.Errorf("unknown zone %q", s.Zone)
	}
	if s.from, err = clock(s.From); err != nil {
		return err
	}
	if s.to, err = clock(s.To); err != nil {
		return err
	}
	for _, days := range s.Days {
		for day := range strings.SplitSeq(days, ",") {
			first, last, isRange := strings.Cut(strings.TrimSpace(day), "-")
			if !isRange {
				last = first
			}
			a, b := slices.Index(weekdays, first), slices.Index(weekdays, last)
			if a < 0 || b < 0 {
				return fmt.Errorf("unknown days %q; known: %s, and ranges such as mon-fri", day, strings.Join(weekdays, ", "))
			}
			for ; ; a = (a + 1) % len(weekdays) {
				s.days[a] = true
				if a == b {
					break
				}
			}
		}
	}
	if len(s.Days) == 0 {
		s.days = [7]bool{true, true, true, true, true, true, true}
	}
	return nil
}

func clock(text string) (time.Duration, error) {
	t, err := time.Parse("15:04", text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time of day such as 07:30", text)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

// span returns the span that begins on a day.
func (s *Schedule) span(day time.Time) (from, to time.Time) {
	at := func(days int, d time.Duration) time.Time { // by the clock on the wall, also when it changes
		return time.Date(day.Year(), day.Month(), day.Day()+days, int(d.Hours()), int(d.Minutes())%60, 0, 0, s.zone)
	}
	if s.to <= s.from {
		return at(0, s.from), at(1, s.to)
	}
	return at(0, s.from), at(0, s.to)
}

// active reports whether the rule is in force at a time.
func (s *Schedule) active(t time.Time) bool {
	if s == nil {
		return true
	}
	local, inside := t.In(s.zone), false
	for _, back := range []int{0, -1} { // a span may have begun yesterday
		day := local.AddDate(0, 0, back)
		if from, to := s.span(day); s.days[day.Weekday()] && !t.Before(from) && t.Before(to) {
			inside = true
		}
	}
	return inside != s.Outside
}

// next returns the first time from t on at which the rule is in force; false: there is none.
func (s *Schedule) next(t time.Time) (time.Time, bool) {
	if s.active(t) {
		return t, true
	}
	var edges []time.Time
	for day := -1; day <= 8; day++ {
		from, to := s.span(t.In(s.zone).AddDate(0, 0, day))
		edges = append(edges, from, to)
	}
	slices.SortFunc(edges, time.Time.Compare)
	for _, edge := range edges {
		if edge.After(t) && s.active(edge) {
			return edge, true
		}
	}
	return time.Time{}, false
}
