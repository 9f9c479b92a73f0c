-- Retention and compression by class of data, and jobs that keep their schedule.
--
-- Aggregates go into the columnstore once no refresh reaches them any more.
ALTER MATERIALIZED VIEW store.sample_1m SET (timescaledb.enable_columnstore);
ALTER MATERIALIZED VIEW store.sample_1h SET (timescaledb.enable_columnstore);

-- On plain PostgreSQL, the moment before which samples are late (0009); here TimescaleDB notes what is late by itself.
CREATE FUNCTION store.late_before() RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT NULL::bigint $$;

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

-- Sets the policies: raw samples, minutes and hours are kept as `keep` says (class → interval); aggregates are brought up
-- to date within `late` and never beyond, because a refresh over dropped chunks rewrites an aggregate from what is left.
-- Changes nothing that is set already.
-- buckets_per_batch 0: in batches (the default since 2.19) the policy of the hour passes over late data in silence
-- (tried with 2.28.3: samples_1m corrected, samples_1h not).
-- initial_start: a fixed schedule. A job that failed comes again in its next turn, not after up to five times that:
-- with PostgreSQL 15.20 every job of TimescaleDB 2.28.3 has done its work, and then counts as failed (docs/ingest.md).
CREATE FUNCTION store.apply_retention(keep jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    late CONSTANT interval := keep ->> 'late';
    settled CONSTANT interval := late + interval '2 days';
    start CONSTANT timestamptz := date_trunc('minute', now());
    aggregate record;
BEGIN
    PERFORM store.check_retention(keep);
    PERFORM pg_advisory_xact_lock(hashtext('store.apply_retention'));
    IF EXISTS (SELECT FROM store.policy WHERE setting = keep) THEN
        RETURN;
    END IF;
    PERFORM remove_retention_policy('store.sample', if_exists => true);
    PERFORM add_retention_policy('store.sample', drop_after => (keep ->> 'samples')::interval, initial_start => start);
    CALL remove_columnstore_policy('store.sample', if_exists => true);
    CALL add_columnstore_policy('store.sample', after => interval '1 day', schedule_interval => interval '1 hour',
        initial_start => start);
    FOR aggregate IN SELECT * FROM (VALUES
        ('store.sample_1m', interval '2 minutes', interval '1 minute', (keep ->> 'samples_1m')::interval),
        ('store.sample_1h', interval '2 hours', interval '10 minutes', (keep ->> 'samples_1h')::interval)
    ) AS a(name, up_to, every, kept) LOOP
        PERFORM remove_retention_policy(aggregate.name::regclass, if_exists => true);
        CALL remove_columnstore_policy(aggregate.name::regclass, if_exists => true);
        PERFORM remove_continuous_aggregate_policy(aggregate.name::regclass, if_exists => true);
        PERFORM add_continuous_aggregate_policy(aggregate.name::regclass, start_offset => late,
            end_offset => aggregate.up_to, schedule_interval => aggregate.every, initial_start => start,
            buckets_per_batch => 0);
        CALL add_columnstore_policy(aggregate.name::regclass, after => settled, schedule_interval => interval '12 hours',
            initial_start => start);
        PERFORM add_retention_policy(aggregate.name::regclass, drop_after => aggregate.kept, initial_start => start);
    END LOOP;
    DELETE FROM store.policy;
    INSERT INTO store.policy (setting) VALUES (keep);
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

REVOKE EXECUTE ON FUNCTION store.late_before FROM PUBLIC;
GRANT EXECUTE ON FUNCTION store.late_before TO vigil_ingest;
