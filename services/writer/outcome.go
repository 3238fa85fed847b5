package writer

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// outcome is what an attempt to write came to.
type outcome int

const (
	written outcome = iota
	// unable: PostgreSQL cannot write now, whatever the rows are.
	unable
	// slow: PostgreSQL did not finish in time.
	slow
	// refused: PostgreSQL refused these rows, or all rows. A probe tells.
	refused
)

// The database's own errors, which are waited out: by SQLSTATE, or its first two
// characters (design 5.6).
var (
	ownClasses = []string{"08", "28", "40", "53", "57", "58"}          //nolint:gochecknoglobals // a constant list
	ownStates  = []string{"25006", "3D000", "55P03", "XX001", "XX002"} //nolint:gochecknoglobals // a constant list
)

const (
	queryCanceled      = "57014" // of a statement_timeout that somebody has set
	configurationLimit = "53400" // of the statement, unlike others of its class
)

// outcomeOf judges an attempt's error.
func outcomeOf(err error) outcome {
	if err == nil {
		return written
	}
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		if errors.Is(err, context.DeadlineExceeded) {
			return slow
		}
		return unable
	}
	state := pgErr.Code
	switch {
	case state == queryCanceled:
		return slow
	case state == configurationLimit:
		return refused
	case len(state) != 5, slices.Contains(ownClasses, state[:2]), slices.Contains(ownStates, state), postgres.Refused(err):
		return unable
	}
	return refused
}

// hopeless tells whether a statement of our own, without rows from outside, can never
// succeed.
func hopeless(err error) bool {
	state := sqlState(err)
	return len(state) == 5 && slices.Contains([]string{"22", "23", "54"}, state[:2])
}

// sqlState is empty where PostgreSQL gave none.
func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// triggerFunction finds the function that raised an error. What else the context of
// an error says may hold values.
var triggerFunction = regexp.MustCompile(`^PL/pgSQL function ([\w.]+)\(`)

// meanings are of what a table, a role or a server is refused for.
var meanings = map[string]string{ //nolint:gochecknoglobals // a constant table
	"25006": "the server is read-only",
	"28P01": "the password is refused",
	"42501": "the writer's role lacks a privilege",
	"42P01": "a table is missing",
	"42703": "a column is missing",
	"53100": "the disk is full",
	"53200": "the server is out of memory",
	"53300": "the server has too many connections",
	"55P03": "somebody else holds a lock",
	"57014": "it did not finish in time",
}

// tableError is what went wrong with a table.
type tableError struct {
	table string
	cause error
}

// Error names no values.
func (e tableError) Error() string { return "table " + e.table + ": " + fault(e.cause) }

// Unwrap returns the cause.
func (e tableError) Unwrap() error { return e.cause }

// refusesAllError is why several controllers' rows were refused.
type refusesAllError struct{ cause error }

// Error names no values.
func (e refusesAllError) Error() string {
	return "the rows of all controllers are refused: " + fault(e.cause)
}

// Unwrap returns the cause.
func (e refusesAllError) Unwrap() error { return e.cause }

// fault says what to look at, and no values: of PostgreSQL's own words the message,
// the detail and the context may hold some.
func fault(err error) string {
	if named, ok := errors.AsType[refusesAllError](err); ok {
		return named.Error()
	}
	if named, ok := errors.AsType[tableError](err); ok {
		return named.Error()
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok && errors.Is(err, context.DeadlineExceeded) {
		return "it did not finish in time"
	}
	if !ok {
		return err.Error()
	}
	said := []string{"SQLSTATE " + pgErr.Code}
	if meaning := meanings[pgErr.Code]; meaning != "" {
		said[0] += " (" + meaning + ")"
	}
	for _, part := range []struct{ kind, name string }{
		{"table", pgErr.TableName},
		{"column", pgErr.ColumnName},
		{"constraint", pgErr.ConstraintName},
		{"type", pgErr.DataTypeName},
	} {
		if part.name != "" {
			said = append(said, part.kind+" "+part.name)
		}
	}
	if m := triggerFunction.FindStringSubmatch(pgErr.Where); m != nil {
		said = append(said, "raised by the function "+m[1])
	}
	return strings.Join(said, ", ")
}
