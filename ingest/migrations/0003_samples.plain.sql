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
    midnight timestamptz;
BEGIN
    FOR day IN SELECT generate_series(date_trunc('day', first AT TIME ZONE 'UTC'),
                                      date_trunc('day', last AT TIME ZONE 'UTC'), interval '1 day')::date LOOP
        IF to_regclass(format('store.sample_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtext('store.sample'));
            midnight := day::timestamp AT TIME ZONE 'UTC';
            -- The checks say of the bins of the aggregates (0007) what the bounds say of time.
            EXECUTE format('CREATE TABLE IF NOT EXISTS store.sample_%1$s PARTITION OF store.sample ('
                           'CHECK (date_bin(''1 minute'', time, ''2000-01-01 00:00:00+00'') >= %2$L '
                           'AND date_bin(''1 minute'', time, ''2000-01-01 00:00:00+00'') < %3$L), '
                           'CHECK (date_bin(''1 hour'', time, ''2000-01-01 00:00:00+00'') >= %2$L '
                           'AND date_bin(''1 hour'', time, ''2000-01-01 00:00:00+00'') < %3$L)) '
                           'FOR VALUES FROM (%2$L) TO (%3$L)',
                           to_char(day, 'YYYYMMDD'), midnight, midnight + interval '24 hours');
        END IF;
    END LOOP;
END $$;
