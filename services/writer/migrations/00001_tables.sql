-- +goose Up

-- One row for each data point of each reading. The natural key makes a
-- redelivered reading a no-op. A reading is the sensor device's own, not the
-- controller's that reported it.
CREATE TABLE measurement (
    time         timestamptz NOT NULL,
    device_id    integer     NOT NULL,
    datapoint_id integer     NOT NULL,
    value        double precision,
    text_value   text,
    received     timestamptz NOT NULL,
    CONSTRAINT measurement_key UNIQUE (device_id, datapoint_id, time),
    CONSTRAINT measurement_has_value CHECK ((value IS NULL) <> (text_value IS NULL))
);
COMMENT ON TABLE measurement IS 'Readings of sensor devices, one row a data point';
COMMENT ON COLUMN measurement.time IS 'when the device took it';
COMMENT ON COLUMN measurement.received IS 'when the bridge took it from the broker';

-- One row for each event of the other components: doors, strikes, readers,
-- sirens, motion, and the commands that were sent to them. Two events of one
-- component in the same second are two rows, so the event id is the key.
CREATE TABLE device_event (
    time          timestamptz NOT NULL,
    event_id      uuid        NOT NULL,
    controller_id integer     NOT NULL,
    mac           text        COLLATE "C" NOT NULL,
    root          text        NOT NULL,
    mode          text        NOT NULL,
    connector     smallint    NOT NULL,
    component     text        COLLATE "C" NOT NULL,
    verb          text        NOT NULL DEFAULT '',
    state         jsonb       NOT NULL,
    received      timestamptz NOT NULL,
    CONSTRAINT device_event_key UNIQUE (time, event_id)
);
CREATE INDEX device_event_component ON device_event (mac, component, time DESC);
COMMENT ON TABLE device_event IS 'Events of controllers: doors, strikes, readers, sirens, motion, commands';
