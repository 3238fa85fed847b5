package mesh

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	pgbouncerfiles "github.com/f2mesh/f2mesh/pgbouncer"
)

// LetThrough has the pooler look its clients up in the database, and the roles be
// among them. conn is a superuser's.
func LetThrough(ctx context.Context, conn *pgx.Conn, roles ...string) error {
	return Execute(ctx, conn, pgbouncerfiles.AuthSQL, "GRANT "+RolePooled+" TO "+strings.Join(roles, ", "))
}
