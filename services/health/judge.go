package health

import (
	"fmt"
	"slices"
	"time"

	"github.com/f2mesh/f2mesh/pkg/operate/alarm"
)

// Kinds of alarms, the last token of their subject.
const (
	StageStalled = "stage_stalled"
	StreamFull   = "stream_full"
	Damaged      = "stream_damaged"
	DeadLetters  = "dead_letters_rising"
	Dropping     = "broker_dropping"
	FailedLogins = "failed_logins"
)

// judge turns looks into alarms. It is not safe for concurrent use.
type judge struct {
	cfg    Config
	alarms *alarm.Board

	moved   map[string]progress           // by stage
	letters map[string]map[string]*window // by stage and instance
	dropped window
	ends    map[string]end // by stream
}

// progress is when a stage was last seen to work.
type progress struct {
	done uint64
	at   time.Time
}

func newJudge(cfg Config, alarms *alarm.Board) *judge {
	return &judge{cfg: cfg, alarms: alarms, moved: map[string]progress{}, letters: map[string]map[string]*window{}, ends: map[string]end{}}
}

// see judges one look.
func (j *judge) see(s *MeshStatus) {
	stalled, letters, full, dropping, damaged := map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}
	for i := range s.Stages {
		stage := &s.Stages[i]
		if cause := j.stalled(stage, s.Time); cause != "" {
			stalled[stage.Stage] = cause
		}
		if n := j.risen(stage, s.Time); n >= j.cfg.DeadLetters {
			letters[stage.Stage] = fmt.Sprintf("%.0f dead letters within %s", n, j.cfg.Window)
		}
	}
	for i := range s.Streams {
		one := &s.Streams[i]
		if one.fill() >= j.fullFrom(one.Stream) {
			full[one.Stream] = fmt.Sprintf("%.0f%% of %d bytes", 100*one.fill(), one.MaxBytes)
		}
		if problem := j.damaged(one); problem != "" {
			damaged[one.Stream] = problem
		}
	}
	// A registrar that does not answer, or has not heard the broker yet, tells
	// nothing, and least of all zero.
	if s.counted {
		j.dropped.add(s.Time, s.Dropped)
	}
	if n := j.dropped.rise(s.Time.Add(-j.cfg.Window)); n > 0 {
		dropping["mosquitto"] = fmt.Sprintf("%.0f messages dropped within %s", n, j.cfg.Window)
	}
	j.alarms.Keep(StageStalled, stalled)
	j.alarms.Keep(DeadLetters, letters)
	j.alarms.Keep(StreamFull, full)
	j.alarms.Keep(Damaged, damaged)
	j.alarms.Keep(Dropping, dropping)
}

// fullFrom is the share from which on a stream is nearly full. One that is already
// has to fall a little further, or the alarm would come and go with every message.
func (j *judge) fullFrom(stream string) float64 {
	if slices.Contains(j.alarms.Subjects(StreamFull), stream) {
		return 0.95 * j.cfg.StreamFull
	}
	return j.cfg.StreamFull
}

// stalled returns why the stage is stalled, "" if it is not.
func (j *judge) stalled(s *ServiceStatus, now time.Time) (cause string) {
	last, known := j.moved[s.Stage]
	if !known || s.Ready && (s.Lag == 0 || s.done != last.done) {
		j.moved[s.Stage] = progress{s.done, now}
		return ""
	}
	waits := now.Sub(last.at).Round(time.Second)
	switch {
	case now.Sub(last.at) < j.cfg.StalledAfter:
		return ""
	case !s.Ready:
		return fmt.Sprintf("not ready for %s: %s", waits, s.Cause)
	default:
		return fmt.Sprintf("%d messages are waiting and none was finished for %s", s.Lag, waits)
	}
}

// risen adds up what each instance's counter rose. That of all together falls and
// rises whenever one does not answer in time. An instance that is new to a known
// stage has begun from zero.
func (j *judge) risen(s *ServiceStatus, now time.Time) (sum float64) {
	all, known := j.letters[s.Stage]
	if !known {
		all = map[string]*window{}
		j.letters[s.Stage] = all
	}
	for id, value := range s.dead {
		if all[id] == nil {
			all[id] = &window{known: known}
		}
		all[id].add(now, value)
	}
	for id, w := range all {
		if sum += w.rise(now.Add(-j.cfg.Window)); now.Sub(w.at) > j.cfg.Window {
			delete(all, id) // it has ended
		}
	}
	return sum
}

// window is how a counter rose of late. A counter that falls began anew.
type window struct {
	known bool
	last  float64
	at    time.Time // of last
	rises []rise
}

type rise struct {
	at time.Time
	by float64
}

func (w *window) add(now time.Time, value float64) {
	by := value - w.last
	if by < 0 {
		by = value
	}
	if w.known && by > 0 {
		w.rises = append(w.rises, rise{now, by})
	}
	w.known, w.last, w.at = true, value, now
}

// rise adds up what came after a time, and forgets what came before.
func (w *window) rise(after time.Time) (sum float64) {
	kept := w.rises[:0]
	for _, r := range w.rises {
		if r.at.After(after) {
			kept = append(kept, r)
			sum += r.by
		}
	}
	w.rises = kept
	return sum
}
