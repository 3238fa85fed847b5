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

// outcome is the result of an attempt to write.
type outcome int

const (
	written outcome = iota
	// unable: PostgreSQL cannot write any rows now.
	unable
	// slow: PostgreSQL did not finish in time.
	slow
	// refused: PostgreSQL refused these rows, or all rows. A probe finds out.
	refused
)

// Errors of the database itself, after which the writer waits: by class or SQLSTATE
// (design 5.6).
var (
	ownClasses = []string{"08", "28", "40", "53", "57", "58"}          //nolint:gochecknoglobals // a constant list
	ownStates  = []string{"25006", "3D000", "55P03", "XX001", "XX002"} //nolint:gochecknoglobals // a constant list
)

const (
	queryCanceled      = "57014" // by a statement_timeout
	configurationLimit = "53400" // an error of the statement, unlike others of its class
)

// outcomeOf returns the outcome of an attempt that ended with err.
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

// hopeless reports whether a statement of the writer itself, without received rows, can
// never succeed.
func hopeless(err error) bool {
	state := sqlState(err)
	return len(state) == 5 && slices.Contains([]string{"22", "23", "54"}, state[:2])
}

// sqlState returns the SQLSTATE of an error, or "".
func sqlState(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// triggerFunction finds the function that raised an error. The rest of an error's context
// may contain values.
var triggerFunction = regexp.MustCompile(`^PL/pgSQL function ([\w.]+)\(`)

// meanings explains some SQLSTATEs.
var meanings = map[string]string{ //nolint:gochecknoglobals // a constant table
	"25006": "the server is read-only",
	"28P01": "the password was refused",
	"42501": "the writer's role lacks a privilege",
	"42P01": "a table is missing",
	"42703": "a column is missing",
	"53100": "the disk is full",
	"53200": "the server is out of memory",
	"53300": "the server has too many connections",
	"55P03": "another session holds a lock",
	"57014": "it did not finish in time",
}

// tableError is the error of a probe of a table.
type tableError struct {
	table string
	cause error
}

// Error names no values.
func (e tableError) Error() string { return "table " + e.table + ": " + fault(e.cause) }

// Unwrap returns the cause.
func (e tableError) Unwrap() error { return e.cause }

// refusesAllError is the error if the rows of several controllers are refused for one cause.
type refusesAllError struct{ cause error }

// Error names no values.
func (e refusesAllError) Error() string {
	return "the rows of all controllers are refused: " + fault(e.cause)
}

// Unwrap returns the cause.
func (e refusesAllError) Unwrap() error { return e.cause }

// fault describes an error without values. PostgreSQL's message, detail and context may
// contain values.
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
