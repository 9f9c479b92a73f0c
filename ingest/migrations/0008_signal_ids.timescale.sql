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
SELECT g.equipment, g.point, a.bucket AS time, a.sum / nullif(a.count, 0) AS avg, a.min, a.max, a.count, a.count_bad,
       a.last, a.signal_id
FROM store.sample_1m a JOIN store.signal g USING (signal_id);

CREATE OR REPLACE VIEW public.samples_1h AS
SELECT g.equipment, g.point, a.hour AS time, a.sum / nullif(a.count, 0) AS avg, a.min, a.max, a.count, a.count_bad,
       a.last, a.signal_id
FROM store.sample_1h a JOIN store.signal g USING (signal_id);
