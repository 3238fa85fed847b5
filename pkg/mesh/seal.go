package mesh

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// SealAudit takes the audit trail's table, once it is there, out of the registrar's
// hands, which may add rows and read them: who has broken into the registrar can
// take neither the trigger away that keeps the rows, nor the table. That takes the
// table, the schema and the database out of them, since the owner of each could.
// Running it again changes nothing. conn is a superuser's, on the registry.
func SealAudit(ctx context.Context, conn *pgx.Conn) error {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('public.audit') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("looking for the audit trail: %w", err)
	}
	if !there {
		return nil
	}
	return Execute(ctx, conn,
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '"+RoleAudit+"') THEN CREATE ROLE "+RoleAudit+" NOLOGIN; END IF; END $$",
		// A new owner takes over what the old one was granted.
		"ALTER DATABASE "+DatabaseRegistry+" OWNER TO "+postgres.Superuser,
		"GRANT CONNECT, TEMPORARY ON DATABASE "+DatabaseRegistry+" TO "+RoleRegistrar,
		"GRANT USAGE, CREATE ON SCHEMA public TO "+RoleRegistrar,
		"ALTER TABLE public.audit OWNER TO "+RoleAudit,
		"ALTER FUNCTION public.audit_is_only_added_to() OWNER TO "+RoleAudit,
		"REVOKE ALL ON FUNCTION public.audit_is_only_added_to() FROM PUBLIC", // its trigger calls it all the same
		"REVOKE ALL ON public.audit FROM "+RoleRegistrar,
		"GRANT SELECT, INSERT ON public.audit TO "+RoleRegistrar,
		"ALTER TABLE public.audit ENABLE ALWAYS TRIGGER audit_is_only_added_to")
}
