-- The views say which signal a row is of. A query that gives signals as an array,
-- `signal_id = ANY (ARRAY(SELECT signal_id FROM signals WHERE …))`, reaches the inside of the aggregates and their index;
-- one by equipment and point alone aggregates what is not yet materialised of all equipment first (measured on 6 hours of
-- 543 signals: 1,200 ms against 3 ms).
CREATE OR REPLACE VIEW public.signals AS
SELECT equipment, point, kind, unit, "group", name_zh, name_en, enum, low, high, limits, registered, retired_at,
       signal_id AS ordinal, signal_id
FROM store.signal;

CREATE OR REPLACE VIEW public.samples AS
SELECT g.equipment, g.point, s.time, s.value, s.quality, s.signal_id
FROM store.sample s JOIN store.signal g USING (signal_id);

CREATE OR REPLACE VIEW public.samples_1m AS
SELECT g.equipment, g.point, date_bin('1 minute', s.time, '2000-01-01 00:00:00+00') AS time,
       avg(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS avg,
       min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
       max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
       count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
       count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
       (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last,
       s.signal_id
FROM store.sample s JOIN store.signal g USING (signal_id)
GROUP BY g.equipment, g.point, 3, s.signal_id;

CREATE OR REPLACE VIEW public.samples_1h AS
SELECT g.equipment, g.point, date_bin('1 hour', s.time, '2000-01-01 00:00:00+00') AS time,
       avg(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS avg,
       min(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS min,
       max(s.value) FILTER (WHERE store.countable(s.value, s.quality)) AS max,
       count(*) FILTER (WHERE store.countable(s.value, s.quality)) AS count,
       count(*) FILTER (WHERE NOT store.countable(s.value, s.quality)) AS count_bad,
       (array_agg(s.value ORDER BY s.time DESC) FILTER (WHERE store.countable(s.value, s.quality)))[1] AS last,
       s.signal_id
FROM store.sample s JOIN store.signal g USING (signal_id)
GROUP BY g.equipment, g.point, 3, s.signal_id;
