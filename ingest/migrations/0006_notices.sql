-- What alerting remembers between a cleared finding and the raised one that overtook it, and how each notice ended.

-- A clear that came before its raise: when the raise comes, the alarm is already over.
CREATE TABLE alarm.early_clear (
    alarm_id   text PRIMARY KEY,
    cleared_at timestamptz NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- NULL: still to be told. withdrawn: no longer true, so never told; refused: the receiver will not take it.
ALTER TABLE alarm.notice ADD COLUMN outcome text CHECK (outcome IN ('sent', 'withdrawn', 'refused'));
CREATE INDEX notice_open ON alarm.notice (alarm_id, channel, notice_id) WHERE outcome IS NULL;
