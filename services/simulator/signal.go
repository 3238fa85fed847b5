package simulator

import (
	"math"
	"math/rand/v2"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/database/fleet"
	"github.com/f2mesh/f2mesh/pkg/message/frame"
)

// How a signal moves, as shares of its range.
const (
	pull    = 0.05  // of the distance to the mean, in each step
	noise   = 0.01  // standard deviation of a step
	swing   = 0.25  // of the mean over the day
	growth  = 1e-6  // of a counter's range, at most, in each step
	flipped = 0.02  // chance that a flag changes
	half    = 0.5   // the middle
	slack   = 0.001 // range of a counter's start values
)

// floatScale is the resolution of values that a device sends as a float.
const floatScale = 1000

// signal is a data point's value over time: a random walk around a mean that follows the
// time of day, a counter, or a flag.
type signal struct {
	point *fleet.Point
	value float64
	scale float64 // steps in one unit: the resolution of the frame
}

func newSignal(p *fleet.Point, r *rand.Rand) signal {
	s := signal{point: p, scale: math.Pow10(p.Field.Decimals)}
	if strings.HasPrefix(p.Field.Encoding.String(), "Float") {
		s.scale = floatScale
	}
	low, span := p.Signal.Low, p.Signal.High-p.Signal.Low
	switch {
	case p.Signal.Rising:
		s.value = low + span*slack*r.Float64()
	case p.Format == "Boolean":
		s.value = math.Round(r.Float64())
	default:
		s.value = low + span*r.Float64()
	}
	return s
}

// step changes the signal and returns its rounded value.
func (s *signal) step(r *rand.Rand, day float64) frame.FieldValue {
	p := &s.point.Signal
	span := p.High - p.Low
	switch {
	case s.point.Format == "Text":
		return frame.FieldValue{Text: p.Text, IsText: true}
	case p.Rising:
		if s.value += span * growth * r.Float64(); s.value > p.High {
			s.value = p.Low // the meter overflows
		}
	case s.point.Format == "Boolean":
		if r.Float64() < flipped {
			s.value = 1 - s.value
		}
		return frame.FieldValue{Number: s.value}
	default:
		mean := p.Low + span*(half+swing*day)
		s.value += pull*(mean-s.value) + noise*span*r.NormFloat64()
		s.value = min(max(s.value, p.Low), p.High)
	}
	return frame.FieldValue{Number: s.onGrid()}
}

// onGrid rounds the value to the resolution.
func (s *signal) onGrid() float64 {
	return math.Round(s.value*s.scale) / s.scale
}
