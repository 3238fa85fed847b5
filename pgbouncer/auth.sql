-- Lets PgBouncer look up the SCRAM verifiers of those who may come through it. A
-- superuser runs this in each database that pgbouncer.ini names:
--
--   psql -v ON_ERROR_STOP=1 -f auth.sql metadata
--
-- and gives the role f2mesh_pgbouncer its password once. Running it again changes
-- nothing, and fixes what somebody else has changed.
--
-- f2mesh_pgbouncer is the pooler itself. It may call the function, and nothing else.
-- f2mesh_pooled has no rights at all: to be a member is to be let through the pooler.
-- A member's own members are too: the second login of a service needs no grant.
BEGIN;

-- The database's owner decides on the search path, and so on what "=" means. This
-- is a superuser's session.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'f2mesh_pgbouncer') THEN
        CREATE ROLE f2mesh_pgbouncer LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'f2mesh_pooled') THEN
        CREATE ROLE f2mesh_pooled NOLOGIN;
    END IF;
    EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO f2mesh_pgbouncer', pg_catalog.current_database());
END
$$;

-- Made anew each time: the database's owner could have made it before us, as his.
DROP SCHEMA IF EXISTS f2mesh_pgbouncer CASCADE;
CREATE SCHEMA f2mesh_pgbouncer;

-- It runs with the rights of the superuser who makes it, because nobody else reads
-- pg_authid. So it looks nowhere but in pg_catalog, whatever search path its caller
-- or the database has. It never answers a superuser, nor one whose password is
-- missing, expired or not SCRAM.
CREATE FUNCTION f2mesh_pgbouncer.lookup(login text) RETURNS TABLE (username text, verifier text)
LANGUAGE sql STABLE STRICT SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.rolname::text, a.rolpassword
    FROM pg_catalog.pg_authid a
    WHERE a.rolname::text = $1
      AND a.rolcanlogin AND NOT a.rolsuper AND NOT a.rolreplication
      AND (a.rolvaliduntil IS NULL OR a.rolvaliduntil > pg_catalog.now())
      AND a.rolpassword LIKE 'SCRAM-SHA-256$%'
      AND pg_catalog.pg_has_role(a.oid, 'f2mesh_pooled', 'MEMBER')
$$;

REVOKE ALL ON FUNCTION f2mesh_pgbouncer.lookup(text) FROM PUBLIC;
GRANT USAGE ON SCHEMA f2mesh_pgbouncer TO f2mesh_pgbouncer;
GRANT EXECUTE ON FUNCTION f2mesh_pgbouncer.lookup(text) TO f2mesh_pgbouncer;

COMMIT;
