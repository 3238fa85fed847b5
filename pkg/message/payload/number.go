package payload

import (
	"bytes"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// notANumber are the errors for values of other types. They are made once, because some devices
// send such values in every message.
var notANumber = func() map[jsontext.Kind]*Error {
	errors := map[jsontext.Kind]*Error{}
	for _, text := range []string{`null`, `true`, `false`, `""`, `{`, `[`} {
		value := jsontext.Value(text)
		errors[value.Kind()] = refuse(ReasonBadField, "%s, not a number", kindOf(value))
	}
	return errors
}()

// parseNumber parses a JSON number as the nearest float64. Numbers out of its range are
// refused; numbers that are too small become 0.
func parseNumber(value jsontext.Value) (float64, error) {
	if value.Kind() != jsontext.KindNumber {
		return 0, notANumber[value.Kind()]
	}
	if len(value) > MaxNumberLength {
		return 0, refuse(ReasonBadNumber, "a number of %d characters; the limit is %d", len(value), MaxNumberLength)
	}
	n, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.IsInf(n, 0) {
		return 0, refuse(ReasonBadNumber, "a number out of the range of a float64")
	}
	return n, nil
}

// checkNumber reports whether jsonb stores the number and a float64 can show it:
// numeric has room for 131,072 digits before the point and 16,383 after it.
func checkNumber(value jsontext.Value) error {
	if _, err := parseNumber(value); err != nil {
		return err
	}
	e := bytes.IndexAny(value, "eE")
	if e < 0 {
		return nil
	}
	exponent, err := strconv.Atoi(string(value[e+1:]))
	if err != nil || exponent < -maxScaleExponent || exponent > maxScaleExponent {
		return refuse(ReasonBadNumber, "a number with an exponent beyond %d", maxScaleExponent)
	}
	return nil
}

// parseInteger parses a JSON number that is written as an integer of low..high.
func parseInteger(value jsontext.Value, low, high int) (int, error) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < low || n > high {
		return 0, refuse(ReasonBadField, "%s, not an integer of %d to %d", kindOf(value), low, high)
	}
	return n, nil
}
