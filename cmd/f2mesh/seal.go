package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/f2mesh/f2mesh/pkg/server/postgres"
)

// sealAudit takes the audit trail's table, once it is there, out of the registrar's
// hands, which may add rows and read them: who has broken into the registrar can
// take neither the trigger away that keeps the rows, nor the table. That takes the
// table, the schema and the database out of them, since the owner of each could.
// Running it again changes nothing. conn is a superuser's, on the registry.
func sealAudit(ctx context.Context, conn *pgx.Conn) error {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('public.audit') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("looking for the audit trail: %w", err)
	}
	if !there {
		return nil
	}
	return execute(ctx, conn,
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '"+roleAudit+"') THEN CREATE ROLE "+roleAudit+" NOLOGIN; END IF; END $$",
		// A new owner takes over what the old one was granted.
		"ALTER DATABASE "+databaseRegistry+" OWNER TO "+postgres.Superuser,
		"GRANT CONNECT, TEMPORARY ON DATABASE "+databaseRegistry+" TO "+roleRegistrar,
		"GRANT USAGE, CREATE ON SCHEMA public TO "+roleRegistrar,
		"ALTER TABLE public.audit OWNER TO "+roleAudit,
		"ALTER FUNCTION public.audit_is_only_added_to() OWNER TO "+roleAudit,
		"REVOKE ALL ON FUNCTION public.audit_is_only_added_to() FROM PUBLIC", // its trigger calls it all the same
		"REVOKE ALL ON public.audit FROM "+roleRegistrar,
		"GRANT SELECT, INSERT ON public.audit TO "+roleRegistrar,
		"ALTER TABLE public.audit ENABLE ALWAYS TRIGGER audit_is_only_added_to")
}
