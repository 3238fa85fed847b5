package main

import (
	"reflect"
	"time"

	"github.com/alecthomas/kong"

	"github.com/f2mesh/f2mesh/pkg/operate/plain"
)

// durations has every flag that takes a duration take days and weeks.
func durations() kong.Option {
	return kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
			return err
		}
		d, err := plain.ParseDuration(text)
		if err != nil {
			return err
		}
		target.SetInt(int64(d))
		return nil
	}))
}
