package decoder

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/f2mesh/f2mesh/pkg/message/payload"
)

// readInteger reads an integer from a column of any type. The error begins with "is".
func readInteger(text *string, least, most int) (int, error) {
	if text == nil {
		return 0, errors.New("is NULL")
	}
	digits := strings.TrimSpace(*text)
	if n, err := strconv.Atoi(digits); err == nil {
		if n < least || n > most {
			return 0, fmt.Errorf("is %d; it must be %d to %d", n, least, most)
		}
		return n, nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	switch {
	case err != nil || strings.ContainsAny(digits, "xXpP_"):
		return 0, fmt.Errorf("is %s; it must be an integer", quoteValue(text))
	case f != math.Trunc(f):
		return 0, fmt.Errorf("is %s; it must be an integer", digits)
	case f < float64(least) || f > float64(most):
		return 0, fmt.Errorf("is %s; it must be %d to %d", digits, least, most)
	}
	return int(f), nil
}

// quoteValue returns a column's value for people.
func quoteValue(text *string) string {
	if text == nil {
		return "NULL"
	}
	return payload.QuoteName(*text)
}

// enumerate returns "a and b" or "a, b and c".
func enumerate(items []string) string {
	last := len(items) - 1
	if last < 1 {
		return strings.Join(items, "")
	}
	return strings.Join(items[:last], ", ") + " and " + items[last]
}

func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
