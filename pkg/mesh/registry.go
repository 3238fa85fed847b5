package mesh

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// PrepareRegistry seals the audit trail, and lets the reader see which controllers have which
// certificates, as far as the registrar's tables are there. conn is a superuser's.
func PrepareRegistry(ctx context.Context, conn *pgx.Conn) error {
	if err := SealAudit(ctx, conn); err != nil {
		return err
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('public.device') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("looking for the registered controllers: %w", err)
	}
	if !there {
		return nil
	}
	return Execute(ctx, conn,
		"GRANT USAGE ON SCHEMA public TO "+RoleReader,
		"GRANT SELECT (mac, serial_number, status, issuer, serial, own_key, registered_at, renewed_at, revoked_at) ON public.device TO "+RoleReader,
		"GRANT SELECT (issuer, serial, mac, not_before, not_after, revoked_at, reason) ON public.certificate TO "+RoleReader)
}
