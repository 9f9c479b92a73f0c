-- Aggregates of a minute and an hour on plain PostgreSQL: computed when they are asked for. They cover finite values
-- that are not bad; count_bad counts the readings left out. Partitions carry checks on the same bins (0003), so a query
-- over a range of bins reads the days of that range only.
CREATE VIEW public.samples_1m AS
SELECT g.equipment, g.point, date_bin('1 minute', s.time, '2000-01-01 00:00:00+00') AS time,
       avg(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS avg,
       min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
       max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
       count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
       count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
       (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last
FROM store.sample s JOIN store.signal g USING (signal_id)
GROUP BY g.equipment, g.point, 3;

CREATE VIEW public.samples_1h AS
SELECT g.equipment, g.point, date_bin('1 hour', s.time, '2000-01-01 00:00:00+00') AS time,
       avg(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS avg,
       min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
       max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
       count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
       count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
       (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last
FROM store.sample s JOIN store.signal g USING (signal_id)
GROUP BY g.equipment, g.point, 3;

GRANT SELECT ON public.samples_1m, public.samples_1h TO vigil_reader, vigil_console, vigil_alert, vigil_analyze;

-- Drops raw samples beyond their retention, a day at a time. Owner's rights: the role that ingests may not drop.
CREATE FUNCTION store.apply_retention(raw interval, late interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = store, pg_temp AS $$
DECLARE
    partition record;
BEGIN
    IF raw <= late THEN
        RAISE EXCEPTION 'retention of raw samples (%) must be longer than the bound on late data (%)', raw, late;
    END IF;
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'store.sample'::regclass
          AND to_date(right(c.relname, 8), 'YYYYMMDD') + 1 < (now() - raw)::date
    LOOP
        EXECUTE format('DROP TABLE store.%I', partition.relname);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION store.apply_retention, store.ensure_sample_partitions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION store.apply_retention, store.ensure_sample_partitions TO vigil_ingest;
