package soak

import "time"

// Fates says what became of the messages of a run.
type Fates struct {
	Sent         int `json:"sent"`
	Acknowledged int `json:"acknowledged"`
	Repeated     int `json:"repeated_by_controller"` // sent again, because no PUBACK came
	Written      int `json:"written"`
	DeadLettered int `json:"dead_lettered"`
	AtBroker     int `json:"lost_at_broker"`    // within the broker's bound (design 5.10)
	Lost         int `json:"lost"`              // everywhere else
	NotInRAW     int `json:"not_in_raw"`        // of these two, those that RAW never had
	Doubled      int `json:"doubled"`           // twice in the tables, unmarked
	Marked       int `json:"marked_as_repeats"` // rows that are marked as possible repeats
	Altered      int `json:"altered"`
	Unknown      int `json:"unknown"` // rows and messages that nobody sent
	// BrokerWindow is how long before a broker's end the oldest of the messages was
	// acknowledged that only the broker had.
	BrokerWindow time.Duration `json:"broker_window_ns"`
	Examples     []Sample      `json:"examples,omitempty"`
}

const maxExamples = 10

// judge sums up. ends are when the broker died, and bound is how long before that it may
// have acknowledged what it then lost.
func (o *oracle) judge(ends []time.Time, bound time.Duration) Fates {
	v := Fates{Unknown: o.unknown}
	for i := range o.messages {
		equal := equalTotals{}
		o.forget(i)
		for n := range o.messages[i] {
			e := &o.messages[i][n]
			if e.sends == 0 {
				continue
			}
			v.Sent++
			v.Repeated += int(e.sends) - 1
			if e.acked {
				v.Acknowledged++
			}
			if e.kind == equalEvent {
				equal.raw++
				if e.acked {
					equal.rows++
				}
				equal.repeats += int(e.sends) - 1
				continue
			}
			o.one(&v, i, uint32(n), e, ends, bound)
		}
		o.equalEvents(&v, i, equal, ends)
	}
	v.Examples = o.examples
	return v
}

// forget finds the dead letters that had to make room for newer ones: the count of the
// newest has them.
func (o *oracle) forget(controller int) {
	var all []*entry
	for n := range o.messages[controller] {
		if e := &o.messages[controller][n]; e.kind == poison && e.raw > 0 {
			all = append(all, e)
		}
	}
	if uint64(len(all)) > o.counted[controller] {
		return
	}
	for _, e := range all {
		e.dead = max(e.dead, 1)
	}
}

// one judges a message that can be told from all others.
func (o *oracle) one(v *Fates, controller int, n uint32, e *entry, ends []time.Time, bound time.Duration) {
	v.Marked += int(e.repeats)
	switch {
	case e.kind == poison && e.dead > 0:
		v.DeadLettered++
	case e.kind != poison && e.rows+e.repeats > 0:
		v.Written++
	case e.acked || e.raw > 0:
		o.missing(v, controller, n, e, ends, bound)
	}
	if e.altered {
		v.Altered++
	}
	// What the controller sent again may be there as often, of readings without a time
	// and, marked, of events (design 5.3).
	if e.rows > 1 && (e.kind != untimedReading || e.rows > e.sends) {
		v.Doubled++
		o.exemplify("doubled", controller, n, e)
	}
}

func (o *oracle) exemplify(fate string, controller int, n uint32, e *entry) {
	if len(o.examples) < maxExamples {
		o.examples = append(o.examples, Sample{
			fate, string(o.fleet[controller].MAC), n, e.kind.String(), time.UnixMicro(e.ackedAt).UTC(), int(e.sends), int(e.raw), int(e.rows), int(e.repeats),
		})
	}
}

func (o *oracle) missing(v *Fates, controller int, n uint32, e *entry, ends []time.Time, bound time.Duration) {
	if e.raw == 0 {
		v.NotInRAW++
		if age, ok := beforeEnd(e.ackedAt, ends); ok && age <= bound {
			v.AtBroker++
			v.BrokerWindow = max(v.BrokerWindow, age)
			return
		}
	}
	v.Lost++
	o.exemplify("lost", controller, n, e)
}

// beforeEnd is how long before the broker's next end a message was acknowledged.
func beforeEnd(acked int64, ends []time.Time) (age time.Duration, ok bool) {
	at := time.UnixMicro(acked)
	for _, end := range ends {
		if d := end.Sub(at); d > -time.Second && (!ok || d < age) {
			age, ok = max(d, 0), true
		}
	}
	return age, ok
}

// equalEvents judges those of one controller by their number: sent.raw is how many were sent,
// sent.rows how many of them were acknowledged, sent.repeats how many were sent again.
func (o *oracle) equalEvents(v *Fates, controller int, sent equalTotals, ends []time.Time) {
	got := o.equal[controller]
	v.Written += min(got.rows+got.repeats, sent.raw)
	v.Marked += got.repeats
	if extra := max(got.rows-sent.raw, got.rows+got.repeats-got.raw); extra > 0 {
		v.Doubled += extra
	}
	if behind := got.raw - got.rows - got.repeats; behind > 0 {
		v.Lost += behind
	}
	if atBroker := sent.rows - got.raw; atBroker > 0 {
		v.NotInRAW += atBroker
		if len(ends) > 0 {
			v.AtBroker += atBroker
		} else {
			v.Lost += atBroker
		}
	}
}
