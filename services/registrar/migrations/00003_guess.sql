-- +goose Up

-- Wrong claiming codes of late, by device. A row goes an hour after the last of them.
CREATE TABLE guess (
    mac      text             COLLATE "C" PRIMARY KEY,
    known    boolean          NOT NULL,
    level    double precision NOT NULL,
    failures bigint           NOT NULL,
    last     timestamptz      NOT NULL
);
COMMENT ON TABLE guess IS 'Wrong claiming codes of late';
COMMENT ON COLUMN guess.known IS 'there is a code to be guessed';
COMMENT ON COLUMN guess.level IS 'of a bucket that leaks: the registrar says how fast, and how much it holds';
