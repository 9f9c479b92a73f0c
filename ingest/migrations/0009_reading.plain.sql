-- Aggregates of a minute and an hour on plain PostgreSQL, kept in tables of their own: they outlive the raw samples, and
-- reading them reads no raw sample but the newest.
--
-- Minutes before `late_before` are closed: who writes samples older than that says so in store.late, in the same
-- transaction (store.late_before gives the moment, under a shared lock that it holds to its end). Closing waits for those
-- who write and have not heard of it, so that every row of a closed minute is either seen by who aggregates it
-- afterwards, or said to be late.
CREATE TABLE store.sample_1m (
    signal_id int NOT NULL,
    bucket    timestamptz NOT NULL,
    sum       float8,
    min       float8,
    max       float8,
    count     bigint NOT NULL,
    count_bad bigint NOT NULL,
    last      float8,
    PRIMARY KEY (signal_id, bucket)
) PARTITION BY RANGE (bucket);                        -- partitions of a month: few, for the planner's sake

CREATE TABLE store.sample_1h (
    signal_id int NOT NULL,
    hour      timestamptz NOT NULL,
    sum       float8,
    min       float8,
    max       float8,
    count     bigint NOT NULL,
    count_bad bigint NOT NULL,
    last      float8,
    PRIMARY KEY (signal_id, hour)
) PARTITION BY RANGE (hour);                          -- partitions of a year

CREATE TABLE store.aggregated (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    late_before timestamptz NOT NULL DEFAULT '-infinity',
    minutes_to  timestamptz NOT NULL DEFAULT '-infinity', -- sample_1m has all minutes before this; at most late_before
    hours_to    timestamptz NOT NULL DEFAULT '-infinity'  -- sample_1h has all hours before this; at most minutes_to
);
INSERT INTO store.aggregated DEFAULT VALUES;

-- Which minutes of which signals got late samples: parallel arrays of runs, one row a transaction.
CREATE TABLE store.late (
    late_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signal_id int[] NOT NULL,
    first     int[] NOT NULL,                         -- minutes since 1970, the last included
    last      int[] NOT NULL
);

-- Samples before this moment (µs since 1970) are late; NULL while no minute is closed. Closing waits for the caller's end.
CREATE FUNCTION store.late_before() RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = store, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('store.late_before'));
    RETURN (SELECT CASE WHEN isfinite(late_before) THEN (extract(epoch FROM late_before) * 1000000)::bigint END
            FROM store.aggregated);
END $$;

CREATE FUNCTION store.close_minutes(before timestamptz) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = store, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('store.late_before'));
    UPDATE store.aggregated SET late_before = date_bin('1 minute', before, '2000-01-01 00:00:00+00')
    WHERE late_before < date_bin('1 minute', before, '2000-01-01 00:00:00+00');
END $$;

-- The partition of a moment, made where it is missing. Attaching takes a lock that lets others read and write.
CREATE FUNCTION store.ensure_aggregate_partition(parent text, part text, first timestamptz, upto timestamptz) RETURNS void
    LANGUAGE plpgsql SET search_path = store, pg_temp AS $$
BEGIN
    IF to_regclass(format('store.%I', part)) IS NULL THEN
        EXECUTE format('CREATE TABLE store.%I (LIKE store.%I INCLUDING INDEXES)', part, parent);
        EXECUTE format('ALTER TABLE store.%I ATTACH PARTITION store.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, part, first, upto);
    END IF;
END $$;

-- Minutes of signals made again from the rows: of each signal those with first ≤ time < upto. Parallel arrays.
CREATE FUNCTION store.aggregate_minutes(signals int[], firsts timestamptz[], uptos timestamptz[]) RETURNS void
    LANGUAGE plpgsql SET search_path = store, pg_temp AS $$
DECLARE
    month timestamp;
BEGIN
    FOR month IN SELECT DISTINCT generate_series(date_trunc('month', f AT TIME ZONE 'UTC'),
                                                 (u - interval '1 microsecond') AT TIME ZONE 'UTC', interval '1 month')
                 FROM (SELECT DISTINCT f, u FROM unnest(firsts, uptos) AS r(f, u)) r LOOP
        PERFORM store.ensure_aggregate_partition('sample_1m', format('sample_1m_%s', to_char(month, 'YYYYMM')),
                                                 month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
    INSERT INTO store.sample_1m AS k (signal_id, bucket, sum, min, max, count, count_bad, last)
    SELECT r.signal_id, a.*
    FROM unnest(signals, firsts, uptos) AS r(signal_id, first, upto)
    CROSS JOIN LATERAL (
        SELECT date_bin('1 minute', s.time, '2000-01-01 00:00:00+00') AS bucket, sum(s.v) AS sum, min(s.v) AS min,
               max(s.v) AS max, count(s.v) AS count, count(*) - count(s.v) AS count_bad,
               (array_agg(s.v ORDER BY s.time DESC) FILTER (WHERE s.v IS NOT NULL))[1] AS last
        FROM (SELECT s.time, CASE WHEN store.countable(s.value, s.quality) THEN s.value END AS v
              FROM store.sample s WHERE s.signal_id = r.signal_id AND s.time >= r.first AND s.time < r.upto) s
        GROUP BY 1
    ) AS a
    ON CONFLICT (signal_id, bucket) DO UPDATE SET sum = excluded.sum, min = excluded.min, max = excluded.max,
        count = excluded.count, count_bad = excluded.count_bad, last = excluded.last;
END $$;

-- Hours of signals made again from their minutes: as above, hours with first ≤ hour < upto.
CREATE FUNCTION store.aggregate_hours(signals int[], firsts timestamptz[], uptos timestamptz[]) RETURNS void
    LANGUAGE plpgsql SET search_path = store, pg_temp AS $$
DECLARE
    year timestamp;
BEGIN
    FOR year IN SELECT DISTINCT generate_series(date_trunc('year', f AT TIME ZONE 'UTC'),
                                                (u - interval '1 microsecond') AT TIME ZONE 'UTC', interval '1 year')
                FROM (SELECT DISTINCT f, u FROM unnest(firsts, uptos) AS r(f, u)) r LOOP
        PERFORM store.ensure_aggregate_partition('sample_1h', format('sample_1h_%s', to_char(year, 'YYYY')),
                                                 year AT TIME ZONE 'UTC', (year + interval '1 year') AT TIME ZONE 'UTC');
    END LOOP;
    INSERT INTO store.sample_1h AS k (signal_id, hour, sum, min, max, count, count_bad, last)
    SELECT r.signal_id, a.*
    FROM unnest(signals, firsts, uptos) AS r(signal_id, first, upto)
    CROSS JOIN LATERAL (
        SELECT date_bin('1 hour', m.bucket, '2000-01-01 00:00:00+00') AS hour, sum(m.sum) AS sum, min(m.min) AS min,
               max(m.max) AS max, sum(m.count)::bigint AS count, sum(m.count_bad)::bigint AS count_bad,
               (array_agg(m.last ORDER BY m.bucket DESC) FILTER (WHERE m.count > 0))[1] AS last
        FROM store.sample_1m m WHERE m.signal_id = r.signal_id AND m.bucket >= r.first AND m.bucket < r.upto GROUP BY 1
    ) AS a
    ON CONFLICT (signal_id, hour) DO UPDATE SET sum = excluded.sum, min = excluded.min, max = excluded.max,
        count = excluded.count, count_bad = excluded.count_bad, last = excluded.last;
END $$;

-- One step: up to `most` notes of late samples, then up to six hours of closed minutes and the hours that they end. True
-- where there is more to do. What is late and before `oldest` stays as it is: its rows may be gone.
CREATE FUNCTION store.aggregate(oldest timestamptz, most int DEFAULT 500) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    state record;
    first timestamptz;
    upto timestamptz;
    hours_first timestamptz;
    hours_upto timestamptz;
    origin CONSTANT timestamptz := '2000-01-01 00:00:00+00';
    late_signal int[];
    late_minute int[];
    notes int;
    of_signal int[];
    of_first timestamptz[];
    of_upto timestamptz[];
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('store.aggregate')) THEN
        RETURN false;                                 -- somebody else is at it
    END IF;
    SELECT * INTO state FROM store.aggregated;
    -- Notes first: what is said later about these minutes is a new note.
    WITH gone AS (
        DELETE FROM store.late WHERE late_id IN (SELECT late_id FROM store.late ORDER BY late_id LIMIT most)
        RETURNING late.signal_id, late.first, late.last
    ), pair AS (
        SELECT DISTINCT p.signal_id, m.minute
        FROM gone, unnest(gone.signal_id, gone.first, gone.last) AS p(signal_id, first, last),
             generate_series(p.first, p.last) AS m(minute)
    )
    SELECT (SELECT count(*) FROM gone), array_agg(p.signal_id), array_agg(p.minute) INTO notes, late_signal, late_minute
    FROM pair p WHERE to_timestamp(p.minute * 60.0) < state.minutes_to AND to_timestamp(p.minute * 60.0) >= oldest;
    -- Runs of neighbouring minutes of a signal.
    SELECT array_agg(r.signal_id), array_agg(to_timestamp(r.low * 60.0)), array_agg(to_timestamp((r.high + 1) * 60.0))
    INTO of_signal, of_first, of_upto
    FROM (SELECT p.signal_id, min(p.minute) AS low, max(p.minute) AS high
          FROM (SELECT p.signal_id, p.minute,
                       p.minute - row_number() OVER (PARTITION BY p.signal_id ORDER BY p.minute) AS run
                FROM unnest(late_signal, late_minute) AS p(signal_id, minute)) p
          GROUP BY p.signal_id, p.run) r;
    PERFORM store.aggregate_minutes(of_signal, of_first, of_upto) WHERE of_signal IS NOT NULL;
    SELECT array_agg(h.signal_id), array_agg(h.hour), array_agg(h.hour + interval '1 hour')
    INTO of_signal, of_first, of_upto
    FROM (SELECT DISTINCT p.signal_id, to_timestamp(p.minute / 60 * 3600.0) AS hour
          FROM unnest(late_signal, late_minute) AS p(signal_id, minute)) h
    WHERE h.hour < state.hours_to;
    PERFORM store.aggregate_hours(of_signal, of_first, of_upto) WHERE of_signal IS NOT NULL;
    -- Then what was closed since.
    -- From the next day that has rows: days without are passed over at once.
    SELECT CASE WHEN min(d.day) IS NULL THEN state.late_before ELSE greatest(state.minutes_to, min(d.day)) END INTO first
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL (SELECT to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' AS day) d
    WHERE i.inhparent = 'store.sample'::regclass AND c.relkind = 'r' AND d.day + interval '24 hours' > state.minutes_to;
    IF isfinite(state.late_before) AND first < state.late_before THEN
        upto := least(state.late_before, date_bin('6 hours', first, origin) + interval '6 hours');
        SELECT array_agg(signal_id), array_agg(first), array_agg(upto) INTO of_signal, of_first, of_upto FROM store.signal;
        PERFORM store.aggregate_minutes(of_signal, of_first, of_upto) WHERE of_signal IS NOT NULL;
        hours_upto := date_bin('1 hour', upto, origin);
        IF hours_upto > state.hours_to THEN
            hours_first := CASE WHEN isfinite(state.hours_to) THEN state.hours_to ELSE date_bin('1 hour', first, origin) END;
            SELECT array_agg(signal_id), array_agg(hours_first), array_agg(hours_upto)
            INTO of_signal, of_first, of_upto FROM store.signal;
            PERFORM store.aggregate_hours(of_signal, of_first, of_upto) WHERE of_signal IS NOT NULL;
        END IF;
        UPDATE store.aggregated SET minutes_to = upto, hours_to = greatest(hours_to, hours_upto);
    ELSIF isfinite(state.late_before) THEN
        upto := state.late_before;
        UPDATE store.aggregated SET minutes_to = upto WHERE minutes_to < upto;
    END IF;
    RETURN notes >= most OR upto < state.late_before;
END $$;

CREATE OR REPLACE VIEW public.samples_1m AS
SELECT g.equipment, g.point, a.bucket AS time, a.sum / nullif(a.count, 0) AS avg, a.min, a.max, a.count, a.count_bad,
       a.last, a.signal_id
FROM store.sample_1m a JOIN store.signal g USING (signal_id)
UNION ALL
SELECT g.equipment, g.point, date_bin('1 minute', s.time, '2000-01-01 00:00:00+00') AS time,
       avg(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS avg,
       min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
       max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
       count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
       count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
       (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last,
       s.signal_id
FROM store.sample s JOIN store.signal g USING (signal_id)
WHERE s.time >= (SELECT minutes_to FROM store.aggregated)
GROUP BY g.equipment, g.point, 3, s.signal_id;

CREATE OR REPLACE VIEW public.samples_1h AS
SELECT g.equipment, g.point, a.hour AS time, a.sum / nullif(a.count, 0) AS avg, a.min, a.max, a.count, a.count_bad,
       a.last, a.signal_id
FROM store.sample_1h a JOIN store.signal g USING (signal_id)
UNION ALL
SELECT g.equipment, g.point, m.time, m.sum / nullif(m.count, 0), m.min, m.max, m.count, m.count_bad, m.last, m.signal_id
FROM (
    SELECT u.signal_id, date_bin('1 hour', u.bucket, '2000-01-01 00:00:00+00') AS time, sum(u.sum) AS sum,
           min(u.min) AS min, max(u.max) AS max, sum(u.count)::bigint AS count, sum(u.count_bad)::bigint AS count_bad,
           (array_agg(u.last ORDER BY u.bucket DESC) FILTER (WHERE u.count > 0))[1] AS last
    FROM (
        SELECT a.signal_id, a.bucket, a.sum, a.min, a.max, a.count, a.count_bad, a.last
        FROM store.sample_1m a WHERE a.bucket >= (SELECT hours_to FROM store.aggregated)
        UNION ALL
        SELECT s.signal_id, date_bin('1 minute', s.time, '2000-01-01 00:00:00+00') AS bucket,
               sum(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS sum,
               min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
               max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
               count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
               count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
               (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last
        FROM store.sample s WHERE s.time >= (SELECT minutes_to FROM store.aggregated) GROUP BY 1, 2
    ) u GROUP BY 1, 2
) m JOIN store.signal g USING (signal_id);

-- What aggregates cover: finite values that are not bad. Beyond 1e290 a sum could overflow, which is an error: two such
-- readings would stop every refresh for good, and fail whoever reads their minute.
CREATE OR REPLACE FUNCTION store.countable(value float8, quality smallint) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(quality & 192 <> 0 AND value >= -1e290::float8 AND value <= 1e290::float8, false)
$$;

CREATE FUNCTION store.check_retention(keep jsonb) RETURNS void
    LANGUAGE plpgsql IMMUTABLE SET search_path = store, pg_temp AS $$
BEGIN
    IF (keep ->> 'samples')::interval <= (keep ->> 'late')::interval THEN
        RAISE EXCEPTION 'retention of raw samples (%) must be longer than the bound on late data (%)',
            keep ->> 'samples', keep ->> 'late';
    END IF;
    IF (keep ->> 'samples_1m')::interval < (keep ->> 'samples')::interval
       OR (keep ->> 'samples_1h')::interval < (keep ->> 'samples_1m')::interval THEN
        RAISE EXCEPTION 'retention of hours (%) must be at least that of minutes (%), and that of raw samples (%)',
            keep ->> 'samples_1h', keep ->> 'samples_1m', keep ->> 'samples';
    END IF;
END $$;

-- Drops raw samples, minutes and hours beyond their retention, a day, a month and a year at a time. Raw samples that are
-- not aggregated yet stay. Owner's rights: the role that ingests may not drop.
CREATE FUNCTION store.apply_retention(keep jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    partition record;
BEGIN
    PERFORM store.check_retention(keep);
    PERFORM pg_advisory_xact_lock(hashtext('store.apply_retention'));
    IF NOT EXISTS (SELECT FROM store.policy WHERE setting = keep) THEN
        DELETE FROM store.policy;
        INSERT INTO store.policy (setting) VALUES (keep);
    END IF;
    FOR partition IN
        SELECT p.name FROM (
            SELECT c.relname AS name, i.inhparent = 'store.sample'::regclass AS raw,
                   CASE i.inhparent WHEN 'store.sample'::regclass
                        THEN to_date(right(c.relname, 8), 'YYYYMMDD') + interval '1 day'
                        WHEN 'store.sample_1m'::regclass
                        THEN to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month'
                        ELSE to_date(right(c.relname, 4), 'YYYY') + interval '1 year' END AS ends,
                   CASE i.inhparent WHEN 'store.sample'::regclass THEN keep ->> 'samples'
                        WHEN 'store.sample_1m'::regclass THEN keep ->> 'samples_1m'
                        ELSE keep ->> 'samples_1h' END AS kept
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent IN ('store.sample'::regclass, 'store.sample_1m'::regclass, 'store.sample_1h'::regclass)
              AND c.relkind = 'r'
        ) p
        WHERE p.ends < (now() - p.kept::interval) AT TIME ZONE 'UTC'
          AND (NOT p.raw OR p.ends AT TIME ZONE 'UTC' <= (SELECT minutes_to FROM store.aggregated))
    LOOP
        EXECUTE format('DROP TABLE store.%I', partition.name);
    END LOOP;
END $$;

-- As it was called before there were classes: the same, the other classes as the settings' defaults have them.
CREATE OR REPLACE FUNCTION store.apply_retention(raw interval, late interval) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = store, pg_temp AS $$
    SELECT store.apply_retention(jsonb_build_object(
        'samples', raw::text, 'late', late::text,
        'samples_1m', greatest(raw, interval '400 days')::text, 'samples_1h', greatest(raw, interval '3660 days')::text))
$$;
REVOKE EXECUTE ON FUNCTION store.apply_retention(jsonb), store.apply_retention(interval, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION store.apply_retention(jsonb), store.apply_retention(interval, interval) TO vigil_ingest;

-- How long each class of data is kept (the setting in force), for who must know what is still there in full.
DELETE FROM store.policy;
CREATE VIEW public.retention AS
SELECT k.key AS class, k.value::interval AS kept FROM store.policy, jsonb_each_text(setting) AS k
WHERE k.key <> 'late';
GRANT SELECT ON public.retention TO vigil_reader, vigil_console, vigil_alert, vigil_analyze;

-- Retention of what is not samples: deletes up to `most` rows of each class that are older than `keep` says (class →
-- interval), returns how many. Never: the accepted seqs (store.progress), an open finding, the last event of each code
-- (what a text point says, what stands), the last change of an equipment's online state. The ledger goes by hours, but
-- hours that its epoch cannot have had (a clock that was off) only with the epoch: their counts may still grow.
CREATE FUNCTION store.prune(keep jsonb, as_of timestamptz, most int) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    deleted bigint := 0;
    n bigint;
    before timestamptz;
BEGIN
    IF (keep ->> 'ledger')::interval < (keep ->> 'samples')::interval THEN
        RAISE EXCEPTION 'retention of the ledger (%) must be at least that of raw samples (%)',
            keep ->> 'ledger', keep ->> 'samples';
    END IF;
    before := as_of - (keep ->> 'events')::interval;
    DELETE FROM store.event WHERE event_id IN (
        SELECT e.event_id FROM store.event e WHERE e.time < before AND EXISTS (
            SELECT FROM store.event l WHERE l.equipment = e.equipment AND l.time >= e.time AND l.scheme = e.scheme
            AND l.code = e.code AND (l.time, l.event_id) > (e.time, e.event_id))
        ORDER BY e.time LIMIT most);
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    before := as_of - (keep ->> 'findings')::interval;
    DELETE FROM store.finding WHERE finding_id IN (
        SELECT f.finding_id FROM store.finding f WHERE f.cleared < before LIMIT most);
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    before := as_of - (keep ->> 'online_history')::interval;
    DELETE FROM store.equipment_online_history WHERE (equipment, time) IN (
        SELECT h.equipment, h.time FROM store.equipment_online_history h WHERE h.time < before AND EXISTS (
            SELECT FROM store.equipment_online_history l
            WHERE l.equipment = h.equipment AND l.time > h.time AND l.time <= before)
        LIMIT most);
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    DELETE FROM store.dead_letter WHERE dead_letter_id IN (
        SELECT d.dead_letter_id FROM store.dead_letter d
        WHERE d.at < as_of - (keep ->> 'dead_letters')::interval
           OR d.replayed_at < as_of - (keep ->> 'replayed_letters')::interval
        ORDER BY d.at LIMIT most);
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    before := as_of - (keep ->> 'ledger')::interval - interval '7 days';
    DELETE FROM store.ledger WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM store.ledger c LEFT JOIN store.progress p
            ON p.service = 'ingest' AND p.edge = c.edge AND p.epoch = c.epoch
        WHERE c.hour < before AND (p.last_at IS NULL OR p.last_at < before OR c.hour >= p.first_at - interval '60 days')
        LIMIT most));
    GET DIAGNOSTICS n = ROW_COUNT;
    deleted := deleted + n;
    DELETE FROM store.dead_sample WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM store.dead_sample c LEFT JOIN store.progress p
            ON p.service = 'ingest' AND p.edge = c.edge AND p.epoch = c.epoch
        WHERE c.equipment <> '' AND c.hour < before
          AND (p.last_at IS NULL OR p.last_at < before OR c.hour >= p.first_at - interval '60 days')
        LIMIT most));
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN deleted + n;
END $$;
REVOKE EXECUTE ON FUNCTION store.prune FROM PUBLIC;
GRANT EXECUTE ON FUNCTION store.prune TO vigil_ingest;

REVOKE EXECUTE ON FUNCTION store.late_before, store.close_minutes, store.aggregate, store.aggregate_minutes,
    store.aggregate_hours, store.ensure_aggregate_partition FROM PUBLIC;
GRANT EXECUTE ON FUNCTION store.late_before, store.close_minutes, store.aggregate TO vigil_ingest;
GRANT SELECT, INSERT ON store.late TO vigil_ingest;
GRANT SELECT ON store.aggregated TO vigil_ingest;
