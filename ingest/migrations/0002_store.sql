-- What ingest keeps beside the samples themselves (0003): names, places in the log, who was accepted, what was refused.
CREATE SCHEMA store;

CREATE TABLE store.signal (
    signal_id  int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE,                  -- equipment/point
    equipment  text NOT NULL,
    point      text NOT NULL,
    name_hash  bigint NOT NULL,                       -- telemetry.ledger.name_hash, as signed 64 bits
    registered boolean NOT NULL DEFAULT false,        -- false: samples came before any registry named it
    kind       text NOT NULL DEFAULT 'measurement',
    unit       text NOT NULL DEFAULT '',
    "group"    text NOT NULL DEFAULT 'main',
    name_zh    text NOT NULL DEFAULT '',
    name_en    text NOT NULL DEFAULT '',
    enum       jsonb NOT NULL DEFAULT '{}',           -- {"0": {"zh": …, "en": …}}
    low        float8,                                -- engineering range
    high       float8,
    limits     jsonb NOT NULL DEFAULT '[]',           -- [{"name", "condition", "limit", "priority"}], for drawing
    retired_at timestamptz,
    UNIQUE (equipment, point)
);

-- Place of a service in a partition of the log; the truth that a worker seeks to. Moved by compare-and-set only.
CREATE TABLE store.log_position (
    service    text NOT NULL,                         -- ingest, analyze, alert
    topic      text NOT NULL,
    partition  int NOT NULL,
    next       bigint NOT NULL,                       -- offset of the first record not yet processed
    last_edge  text,                                  -- identity of the record at next − 1, compared on assignment
    last_epoch bigint,
    last_seq   bigint,
    last_crc   bigint,
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, topic, partition)
);

-- Which records of (edge, epoch) were accepted. A set and not a watermark: live data may overtake back-fill.
CREATE TABLE store.progress (
    service  text NOT NULL,
    edge     text NOT NULL,
    epoch    bigint NOT NULL,
    accepted int8multirange NOT NULL DEFAULT '{}',
    dropped  int8multirange NOT NULL DEFAULT '{}',    -- what the spool dropped by policy and said so
    samples  bigint NOT NULL DEFAULT 0,
    samples_dropped bigint NOT NULL DEFAULT 0,
    first_at timestamptz NOT NULL DEFAULT now(),
    last_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, edge, epoch)
);

-- What edges journaled, by their own count. The audit compares it with the rows themselves.
CREATE TABLE store.ledger (
    edge      text NOT NULL,
    epoch     bigint NOT NULL,
    equipment text NOT NULL,
    hour      timestamptz NOT NULL,
    samples   bigint NOT NULL,
    checksum  numeric(20) NOT NULL,                   -- sum modulo 2^64 of telemetry.ledger row hashes
    -- of a ledger split over several records, those that came before the last one
    pending_samples  bigint NOT NULL DEFAULT 0,
    pending_checksum numeric(20) NOT NULL DEFAULT 0,
    PRIMARY KEY (edge, epoch, equipment, hour)
);

CREATE TABLE store.ledger_through (
    edge    text NOT NULL,
    epoch   bigint NOT NULL,
    through bigint NOT NULL,                          -- the ledger covers records up to this seq
    PRIMARY KEY (edge, epoch)
);

-- Accepted records that no ledger record covers yet, so that the audit can tell their rows from doubled ones.
CREATE TABLE store.unledgered (
    edge      text NOT NULL,
    epoch     bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,                        -- gone when the ledger covers this seq
    equipment text[] NOT NULL,                        -- parallel arrays: samples stored by equipment and hour
    hour_us   bigint[] NOT NULL,
    samples   bigint[] NOT NULL                       -- of records that cannot be read or were dropped: equipment ''
);
CREATE INDEX ON store.unledgered (edge, epoch, last_seq);

CREATE TABLE store.dead_letter (
    dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT now(),
    service   text NOT NULL,
    topic     text NOT NULL,
    partition int NOT NULL,
    "offset"  bigint NOT NULL,
    edge      text,
    epoch     bigint,
    seq       bigint,
    reason    text NOT NULL,                          -- a slug: crc, arrow, future, too-old, name, …
    detail    text NOT NULL,
    samples   bigint NOT NULL DEFAULT 0,
    key       bytea NOT NULL,
    headers   jsonb NOT NULL,
    value     bytea NOT NULL,                         -- the whole record; of a batch with some bad rows, those rows
    replayed_at timestamptz
);
CREATE INDEX ON store.dead_letter (at);

-- Counts of dead samples, per (edge, epoch, equipment, hour), for the audit's equation. Of a record that cannot be
-- read the equipment is '' and the hour 1970.
CREATE TABLE store.dead_sample (
    edge      text NOT NULL,
    epoch     bigint NOT NULL,
    equipment text NOT NULL,
    hour      timestamptz NOT NULL,
    samples   bigint NOT NULL,
    checksum  numeric(20) NOT NULL DEFAULT 0,         -- as in store.ledger
    PRIMARY KEY (edge, epoch, equipment, hour)
);

-- Derived after the commit of the samples, at most once a second a signal; rebuilt at start.
CREATE TABLE store.latest (
    signal_id  int PRIMARY KEY REFERENCES store.signal,
    time       timestamptz NOT NULL,
    value      float8,
    quality    smallint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);                             -- updates stay on their page; no index may cover what changes

CREATE TABLE store.event (
    event_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    equipment  text NOT NULL,
    time       timestamptz NOT NULL,
    scheme     text NOT NULL,
    code       text NOT NULL,
    state      text NOT NULL CHECK (state IN ('on', 'off')),
    attributes jsonb NOT NULL DEFAULT '{}',
    edge       text NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON store.event (equipment, time DESC);
CREATE INDEX ON store.event (time DESC);

CREATE TABLE store.finding (
    finding_id text PRIMARY KEY,                      -- telemetry.messages.Finding.id
    equipment  text NOT NULL,
    point      text NOT NULL,
    detector   text NOT NULL,
    onset      timestamptz NOT NULL,
    raised     timestamptz,
    cleared    timestamptz,
    score      float8 NOT NULL,
    evidence   jsonb NOT NULL DEFAULT '{}',
    late       boolean NOT NULL DEFAULT false
);
CREATE INDEX ON store.finding (equipment, onset DESC);

-- From heartbeats: which edge lives, which equipment answers.
CREATE TABLE store.edge (
    edge      text PRIMARY KEY,
    heartbeat timestamptz NOT NULL,
    epoch     bigint NOT NULL,
    epoch_at  timestamptz NOT NULL DEFAULT now(),     -- first heartbeat of this epoch
    registry_at timestamptz                           -- time of the registry that was applied last
);

CREATE TABLE store.equipment_online (
    equipment text PRIMARY KEY,
    edge      text NOT NULL,
    online    boolean NOT NULL,
    since     timestamptz NOT NULL,                   -- of the present state
    heard     timestamptz NOT NULL                    -- heartbeat of the last change; see store.edge for the last of all
);

-- Every change of the above, for online rates over a period.
CREATE TABLE store.equipment_online_history (
    equipment text NOT NULL,
    time      timestamptz NOT NULL,
    online    boolean NOT NULL,
    PRIMARY KEY (equipment, time)
);

-- State of an analytics partition, with the offset that it stands for (store.log_position of service analyze).
CREATE TABLE store.snapshot (
    service   text NOT NULL,
    topic     text NOT NULL,
    partition int NOT NULL,
    next      bigint NOT NULL,
    taken_at  timestamptz NOT NULL DEFAULT now(),
    state     bytea NOT NULL,
    PRIMARY KEY (service, topic, partition)
);

-- Which retention policies are in force (0007).
CREATE TABLE store.policy (
    setting jsonb NOT NULL
);

-- What aggregates cover: finite values that are not bad.
CREATE FUNCTION store.countable(value float8, quality smallint) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(quality & 192 <> 0 AND value > '-Infinity'::float8 AND value < 'Infinity'::float8, false)
$$;
