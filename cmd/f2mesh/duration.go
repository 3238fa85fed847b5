package main

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// days are the units that time.ParseDuration lacks, in hours.
var days = map[byte]float64{'d': 24, 'w': 7 * 24} //nolint:gochecknoglobals // a constant

var daysPattern = regexp.MustCompile(`[0-9]*\.?[0-9]+[dw]`) //nolint:gochecknoglobals // a constant

// parseDuration reads a duration as time.ParseDuration does, and also days of 24
// hours and weeks: 1d, 1.5d, 2w3d12h.
func parseDuration(text string) (time.Duration, error) {
	inHours := daysPattern.ReplaceAllStringFunc(text, func(part string) string {
		number, err := strconv.ParseFloat(part[:len(part)-1], 64)
		if err != nil {
			return part
		}
		return strconv.FormatFloat(number*days[part[len(part)-1]], 'f', -1, 64) + "h"
	})
	d, err := time.ParseDuration(inHours)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration: a number with a unit is, such as 90s, 15m, 12h, 1d or 2w", text)
	}
	return d, nil
}

// durations has every flag that takes a duration take days and weeks.
func durations() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := parseDuration(text)
		if err != nil {
			return err
		}
		target.SetInt(int64(d))
		return nil
	}))
}
