package writer

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
)

// rowsFault tells whether PostgreSQL refused the rows themselves, so that
// trying again is pointless: data exceptions, integrity violations, and values
// over a program limit (design 5.6). Everything else, from a lost connection to
// a full disk, a wrong password or a missing table, is waited out.
func rowsFault(err error) (sqlState string, yes bool) {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || len(pgErr.Code) != 5 {
		return "", false
	}
	switch pgErr.Code[:2] {
	case "22", "23", "54":
		return pgErr.Code, true
	}
	return pgErr.Code, false
}
