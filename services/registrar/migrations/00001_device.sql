-- +goose Up

-- A device's certificates, one of which is its current one. They stay when they
-- are replaced, since one that is still valid can be revoked.
CREATE TABLE certificate (
    issuer      text        COLLATE "C" NOT NULL,
    serial      text        COLLATE "C" NOT NULL,
    mac         text        COLLATE "C" NOT NULL,
    fingerprint text        COLLATE "C" NOT NULL,
    not_before  timestamptz NOT NULL,
    not_after   timestamptz NOT NULL,
    revoked_at  timestamptz,
    reason      integer,
    PRIMARY KEY (issuer, serial),
    CHECK ((revoked_at IS NULL) = (reason IS NULL))
);
CREATE INDEX certificate_mac ON certificate (mac);
CREATE INDEX certificate_revoked ON certificate (issuer, not_after) WHERE revoked_at IS NOT NULL;
COMMENT ON TABLE certificate IS 'Certificates that devices were given';
COMMENT ON COLUMN certificate.issuer IS 'key identifier of the issuing CA, lower-case hex';
COMMENT ON COLUMN certificate.serial IS 'lower-case hex';
COMMENT ON COLUMN certificate.fingerprint IS 'SHA-256, lower-case hex';
COMMENT ON COLUMN certificate.reason IS 'of the revocation, RFC 5280 5.3.1';

-- What counts: bundles, access control list, revocation list and live sessions
-- follow from it.
CREATE TABLE device (
    mac           text        COLLATE "C" PRIMARY KEY CHECK (mac ~ '^[0-9a-f]{12}$'),
    serial_number text        NOT NULL,
    status        text        NOT NULL CHECK (status IN ('active', 'revoked')),
    issuer        text        COLLATE "C" NOT NULL,
    serial        text        COLLATE "C" NOT NULL,
    own_key       boolean     NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    renewed_at    timestamptz,
    revoked_at    timestamptz,
    FOREIGN KEY (issuer, serial) REFERENCES certificate,
    CHECK ((status = 'revoked') = (revoked_at IS NOT NULL))
);
COMMENT ON TABLE device IS 'The controllers of the fleet';
COMMENT ON COLUMN device.serial_number IS 'on the device''s label';
COMMENT ON COLUMN device.own_key IS 'the key was made on the device';

-- Sessions that are to be ended once the lists in force keep their device out.
CREATE TABLE eviction (
    mac text COLLATE "C" PRIMARY KEY
);
COMMENT ON TABLE eviction IS 'Sessions that are still to be ended; empty but for moments';

-- Revocation lists are numbered in the order in which they are made.
CREATE SEQUENCE revocation_list;
