-- The hours before the first one that was closed. Minutes are closed from the start on, whether or not there are samples; where
-- the first samples that ever came were old (an edge's spool into a new store), their minutes were kept as late ones, and
-- their hours never: samples_1h did not show them, and nothing brought them back.
CREATE OR REPLACE FUNCTION store.aggregate(oldest timestamptz, most int DEFAULT 500) RETURNS boolean
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
            -- The first hours of all: notes may have made minutes long before `first`.
            hours_first := CASE WHEN isfinite(state.hours_to) THEN state.hours_to
                           ELSE date_bin('1 hour', least(first, (SELECT min(bucket) FROM store.sample_1m)), origin) END;
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

-- Of stores to which that happened: such hours are of the first month of minutes or the next, because samples older than
-- the bound on late data are not stored. What is there already is made again from the same minutes, to the same values.
DO $$
DECLARE
    first timestamptz;
    upto timestamptz;
    signals int[];
BEGIN
    SELECT min(to_date(right(c.relname, 6), 'YYYYMM')::timestamp AT TIME ZONE 'UTC') INTO first
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'store.sample_1m'::regclass;
    SELECT least(hours_to, (first AT TIME ZONE 'UTC' + interval '2 months') AT TIME ZONE 'UTC') INTO upto
    FROM store.aggregated;
    SELECT array_agg(signal_id) INTO signals FROM store.signal;
    IF first < upto AND signals IS NOT NULL THEN
        PERFORM store.aggregate_hours(signals, array_fill(first, ARRAY[cardinality(signals)]),
                                      array_fill(upto, ARRAY[cardinality(signals)]));
    END IF;
END $$;
