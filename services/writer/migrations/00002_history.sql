-- +goose Up

-- Rows with an implausible clock are found by the time at which they were
-- received; what the clock said is kept beside it.
ALTER TABLE measurement ADD COLUMN device_time timestamptz;
COMMENT ON COLUMN measurement.time IS 'when the device took it; when it was received, if the device sent no time or an implausible one';
COMMENT ON COLUMN measurement.device_time IS 'the time that the device gave, where it is implausible, else NULL';

ALTER TABLE device_event ADD COLUMN device_time timestamptz;
ALTER TABLE device_event ADD COLUMN possible_repeat boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN device_event.time IS 'when it happened by the device''s clock; when it was received, if the device sent no time or an implausible one';
COMMENT ON COLUMN device_event.device_time IS 'the time that the device gave, where it is implausible, else NULL';
COMMENT ON COLUMN device_event.event_id IS 'the message''s place in the stream RAW: when the stream was created, and the sequence, 8 bytes each';
COMMENT ON COLUMN device_event.possible_repeat IS 'true where the same message may have been sent twice and be an earlier row too';

-- Values that measurement does not have. The key names a row of measurement.
CREATE TABLE measurement_history (
    time         timestamptz NOT NULL,
    device_id    integer     NOT NULL,
    datapoint_id integer     NOT NULL,
    value        double precision,
    text_value   text,
    received     timestamptz NOT NULL,
    event_id     uuid        NOT NULL,
    reason       text        NOT NULL,
    recorded     timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT measurement_history_has_value CHECK ((value IS NULL) <> (text_value IS NULL)),
    CONSTRAINT measurement_history_reason CHECK (reason IN ('conflict', 'redecoded'))
);
CREATE UNIQUE INDEX measurement_history_conflict ON measurement_history (device_id, datapoint_id, time, event_id) WHERE reason = 'conflict';
CREATE INDEX measurement_history_key ON measurement_history (device_id, datapoint_id, time);
COMMENT ON TABLE measurement_history IS 'Values beside those of measurement: a second one for the same moment, or the one before a message was decoded again';
COMMENT ON COLUMN measurement_history.event_id IS 'conflict: the message with this value; redecoded: the message whose new value replaced this one';
COMMENT ON COLUMN measurement_history.reason IS 'conflict: measurement has the value that came first; redecoded: measurement has the newer value';
COMMENT ON COLUMN measurement_history.recorded IS 'when the writer put it here';
