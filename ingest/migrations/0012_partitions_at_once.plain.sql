-- Two workers with the first samples of the same day: the one that waited for the other looked the partition up by to_regclass,
-- whose answer of before the wait the session still had, made it again and failed. A query has a snapshot of after the wait.
CREATE OR REPLACE FUNCTION store.ensure_sample_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    day date;
    midnight timestamptz;
    name text;
BEGIN
    FOR day IN SELECT generate_series(date_trunc('day', first AT TIME ZONE 'UTC'),
                                      date_trunc('day', last AT TIME ZONE 'UTC'), interval '1 day')::date LOOP
        CONTINUE WHEN to_regclass(format('store.sample_%s', to_char(day, 'YYYYMMDD'))) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('store.sample'));
        IF NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'store'::regnamespace
                       AND relname = format('sample_%s', to_char(day, 'YYYYMMDD'))) THEN
            midnight := day::timestamp AT TIME ZONE 'UTC';
            name := format('sample_%s', to_char(day, 'YYYYMMDD'));
            -- The checks say of the bins of the aggregates (0007) what the bounds say of time. Attaching takes a lock
            -- that lets others read and write; creating the partition in place would not.
            EXECUTE format('CREATE TABLE store.%1$I (LIKE store.sample, '
                           'CHECK (date_bin(''1 minute'', time, ''2000-01-01 00:00:00+00'') >= %2$L '
                           'AND date_bin(''1 minute'', time, ''2000-01-01 00:00:00+00'') < %3$L), '
                           'CHECK (date_bin(''1 hour'', time, ''2000-01-01 00:00:00+00'') >= %2$L '
                           'AND date_bin(''1 hour'', time, ''2000-01-01 00:00:00+00'') < %3$L))',
                           name, midnight, midnight + interval '24 hours');
            EXECUTE format('ALTER TABLE store.sample ATTACH PARTITION store.%1$I FOR VALUES FROM (%2$L) TO (%3$L)',
                           name, midnight, midnight + interval '24 hours');
        END IF;
    END LOOP;
END $$;
