-- Samples on plain PostgreSQL: native partitions of one day, made when they are first needed.
CREATE TABLE store.sample (
    signal_id int NOT NULL,
    time      timestamptz NOT NULL,
    value     float8,
    quality   smallint NOT NULL
) PARTITION BY RANGE (time);
CREATE INDEX sample_signal_time ON store.sample (signal_id, time DESC);

-- Owner's rights: the role that ingests may not create tables.
CREATE FUNCTION store.ensure_sample_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    day date;
BEGIN
    FOR day IN SELECT generate_series(date_trunc('day', first AT TIME ZONE 'UTC'),
                                      date_trunc('day', last AT TIME ZONE 'UTC'), interval '1 day')::date LOOP
        IF to_regclass(format('store.sample_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('store.sample'));
            EXECUTE format('CREATE TABLE IF NOT EXISTS store.sample_%s PARTITION OF store.sample '
                           'FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYYMMDD'),
                           day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
        END IF;
    END LOOP;
END $$;
