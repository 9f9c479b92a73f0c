-- Alarms. Only alerting changes them; others write command rows. Every transition is kept.
CREATE SCHEMA alarm;

CREATE TABLE alarm.alarm (
    alarm_id       text PRIMARY KEY,                  -- the finding's id: a replay cannot make a second one
    equipment      text NOT NULL,
    point          text NOT NULL,
    detector       text NOT NULL,
    -- ISA-18.2 states; shelved, suppressed and out_of_service come with the full lifecycle
    state          text NOT NULL CHECK (state IN ('unacknowledged', 'acknowledged', 'returned_unacknowledged', 'normal',
                                                  'shelved', 'suppressed', 'out_of_service')),
    priority       text NOT NULL CHECK (priority IN ('critical', 'high', 'medium', 'low')),
    text_zh        text NOT NULL,
    text_en        text NOT NULL,
    consequence_zh text NOT NULL DEFAULT '',
    consequence_en text NOT NULL DEFAULT '',
    action_zh      text NOT NULL DEFAULT '',
    action_en      text NOT NULL DEFAULT '',
    onset          timestamptz NOT NULL,              -- when the condition began
    raised_at      timestamptz NOT NULL,
    acknowledged_at timestamptz,
    acknowledged_by text,
    acknowledge_note text,
    cleared_at     timestamptz,
    late           boolean NOT NULL DEFAULT false,
    evidence       jsonb NOT NULL DEFAULT '{}',
    -- as they were when it was raised
    class          text NOT NULL DEFAULT '',
    area_id        bigint REFERENCES register.area,
    owner_id       bigint REFERENCES register.organisation,
    user_id        bigint REFERENCES register.organisation,
    maintainer_id  bigint REFERENCES register.organisation,
    stored_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON alarm.alarm (raised_at DESC) WHERE state <> 'normal';
CREATE INDEX ON alarm.alarm (equipment, raised_at DESC);

CREATE TABLE alarm.history (
    history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_id   text NOT NULL REFERENCES alarm.alarm,
    at         timestamptz NOT NULL,
    transition text NOT NULL,                         -- raise, acknowledge, clear, …
    from_state text NOT NULL,
    to_state   text NOT NULL,
    actor      text NOT NULL,                         -- a person, or the service that found it
    actor_id   bigint REFERENCES register.person,     -- wherever log-in is on
    reason     text NOT NULL DEFAULT '',
    note       text NOT NULL DEFAULT '',
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX ON alarm.history (alarm_id, history_id);

CREATE TABLE alarm.command (
    command_id   text PRIMARY KEY,                    -- the client's Idempotency-Key
    alarm_id     text NOT NULL,
    command      text NOT NULL CHECK (command IN ('acknowledge')),
    by           text NOT NULL,
    note         text NOT NULL DEFAULT '',
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    outcome      text CHECK (outcome IN ('done', 'already_acknowledged', 'unknown_alarm')),
    handled_at   timestamptz
);
CREATE INDEX ON alarm.command (requested_at) WHERE outcome IS NULL;

-- What people must be told: written in the transition's own transaction, sent afterwards, repeated until acknowledged.
CREATE TABLE alarm.notice (
    notice_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_id   text NOT NULL REFERENCES alarm.alarm,
    channel    text NOT NULL,
    transition text NOT NULL,
    body       jsonb NOT NULL,
    due_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts   int NOT NULL DEFAULT 0,
    sent_at    timestamptz,
    last_error text,
    -- NULL: still to be told. withdrawn: no longer true, so never told; refused: the receiver will not take it
    outcome    text CHECK (outcome IN ('sent', 'withdrawn', 'refused'))
);
CREATE INDEX notice_open ON alarm.notice (alarm_id, channel, notice_id) WHERE outcome IS NULL;

-- A clear that came before its raise: when the raise comes, the alarm is already over.
CREATE TABLE alarm.early_clear (
    alarm_id   text PRIMARY KEY,
    cleared_at timestamptz NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
