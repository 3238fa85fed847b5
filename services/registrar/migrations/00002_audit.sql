-- +goose Up

-- The audit trail. It is only ever added to: the trigger refuses everything else
-- also to the table's owner, who would have to take the trigger away first. Who
-- provisions the database gives the table to a role that nobody logs in as
-- (f2mesh_audit): then the registrar can do no more than add to it and read it.
CREATE TABLE audit (
    seq      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text        COLLATE "C" NOT NULL UNIQUE,
    time     timestamptz NOT NULL,
    actor    text        NOT NULL,
    action   text        NOT NULL,
    mac      text        COLLATE "C" NOT NULL DEFAULT '',
    serial   text        NOT NULL DEFAULT '',
    detail   text        NOT NULL DEFAULT '',
    address  text        NOT NULL DEFAULT '',
    recorded timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX audit_mac ON audit (mac, seq);
COMMENT ON TABLE audit IS 'Who issued, renewed, revoked or rotated what, and who was refused; only ever added to';
COMMENT ON COLUMN audit.serial IS 'of the certificate, lower-case hex';
COMMENT ON COLUMN audit.recorded IS 'when the row was written; later than time if it came by way of the stream AUDIT';

-- +goose StatementBegin
CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is only ever added to' USING ERRCODE = 'insufficient_privilege';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_is_only_added_to BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_only_added_to();
REVOKE UPDATE, DELETE, TRUNCATE ON audit FROM CURRENT_USER, PUBLIC;

-- What of audit is not yet on the stream AUDIT. Its rows come and go.
CREATE TABLE audit_outbox (
    seq bigint PRIMARY KEY
);
COMMENT ON TABLE audit_outbox IS 'Rows of audit that the stream AUDIT does not have yet';

-- Claiming codes in use and used. The fleet's metadata, where the codes are, is
-- not ours to change.
CREATE TABLE claim (
    mac      text        COLLATE "C" NOT NULL,
    digest   bytea       NOT NULL,
    since    timestamptz NOT NULL DEFAULT now(),
    used     boolean     NOT NULL DEFAULT false,
    PRIMARY KEY (mac, digest)
);
COMMENT ON TABLE claim IS 'Claiming codes that were presented: a used one is never accepted again';
COMMENT ON COLUMN claim.digest IS 'SHA-256 of MAC and code';
