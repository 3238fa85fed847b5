-- Announces every change of the metadata on the channel f2mesh_metadata. The
-- payload is the affected controller's MAC, 12 lower-case hex digits, or '*'
-- when all controllers may be affected. It runs with search_path set to the
-- schema, in one transaction, any number of times.
--
-- The triggers are statement-level: a bulk load of thousands of rows runs each
-- function once. PostgreSQL delivers a notification at COMMIT, and one for
-- equal payloads of a transaction.

-- Notifies for each MAC, or once for all when there are many.
CREATE OR REPLACE FUNCTION f2mesh_notify(macs text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    mac text;
BEGIN
    IF cardinality(macs) > 100 OR array_position(macs, NULL) IS NOT NULL THEN
        PERFORM pg_notify('f2mesh_metadata', '*');
        RETURN;
    END IF;
    FOREACH mac IN ARRAY macs LOOP
        PERFORM pg_notify('f2mesh_metadata', lower(regexp_replace(mac, '[^0-9A-Fa-f]', '', 'g')));
    END LOOP;
END $$;

-- A controller's row names its MAC; a sensor's row leads to its controller by
-- the pin. A sensor without a pin affects nobody yet.
CREATE OR REPLACE FUNCTION f2mesh_device_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM f2mesh_notify(COALESCE(array_agg(DISTINCT mac), '{}')) FROM (
        SELECT "MacAddress" AS mac FROM changed WHERE "MacAddress" IS NOT NULL
        UNION
        SELECT controller."MacAddress"
        FROM changed
        JOIN "Pin" USING ("DeviceId")
        JOIN "Connector" USING ("ConnectorId")
        JOIN "Device" controller ON controller."DeviceId" = "ControllerId"
        WHERE controller."MacAddress" IS NOT NULL
    ) AS affected;
    RETURN NULL;
END $$;

-- An unknown MAC, as in the course of a cascading delete, stands for all.
CREATE OR REPLACE FUNCTION f2mesh_connector_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM f2mesh_notify(COALESCE(array_agg(DISTINCT "MacAddress"), '{}'))
    FROM changed
    LEFT JOIN "Device" ON "DeviceId" = "ControllerId";
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION f2mesh_pin_changed() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM f2mesh_notify(COALESCE(array_agg(DISTINCT controller."MacAddress"), '{}'))
    FROM changed
    LEFT JOIN "Connector" USING ("ConnectorId")
    LEFT JOIN "Device" controller ON controller."DeviceId" = "ControllerId";
    RETURN NULL;
END $$;

-- A template belongs to any number of controllers.
CREATE OR REPLACE FUNCTION f2mesh_template_changed() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM changed) THEN
        PERFORM pg_notify('f2mesh_metadata', '*');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION f2mesh_truncated() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('f2mesh_metadata', '*');
    RETURN NULL;
END $$;

-- A trigger calls its function whoever changes the table, so nobody else has to. The
-- functions call f2mesh_notify as that role.
REVOKE ALL ON FUNCTION f2mesh_device_changed(), f2mesh_connector_changed(), f2mesh_pin_changed(),
    f2mesh_template_changed(), f2mesh_truncated() FROM PUBLIC;

-- A trigger with a transition table serves one event, and sees the old rows or
-- the new ones as "changed": an update has two triggers, since a row can have
-- left one controller for another.
DO $$
DECLARE
    target  text;
    handler text;
BEGIN
    FOR target, handler IN VALUES
        ('Device', 'f2mesh_device_changed'),
        ('Connector', 'f2mesh_connector_changed'),
        ('Pin', 'f2mesh_pin_changed'),
        ('DeviceType', 'f2mesh_template_changed'),
        ('DeviceTemplate', 'f2mesh_template_changed'),
        ('DataPoint', 'f2mesh_template_changed'),
        ('f2mesh_not_available', 'f2mesh_template_changed')
    LOOP
        CONTINUE WHEN target = 'f2mesh_not_available' AND to_regclass(target) IS NULL;
        EXECUTE format('CREATE OR REPLACE TRIGGER f2mesh_insert AFTER INSERT ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, handler);
        EXECUTE format('CREATE OR REPLACE TRIGGER f2mesh_delete AFTER DELETE ON %I REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, handler);
        EXECUTE format('CREATE OR REPLACE TRIGGER f2mesh_update_old AFTER UPDATE ON %I REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, handler);
        EXECUTE format('CREATE OR REPLACE TRIGGER f2mesh_update_new AFTER UPDATE ON %I REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION %I()', target, handler);
        EXECUTE format('CREATE OR REPLACE TRIGGER f2mesh_truncate AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION f2mesh_truncated()', target);
    END LOOP;
END $$;
