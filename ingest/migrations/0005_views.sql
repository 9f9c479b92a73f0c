-- The contract for boards and for anyone's own tools: the same names and columns on TimescaleDB and PostgreSQL.
CREATE VIEW public.areas AS
SELECT a.id, p.id AS parent, a.level, a.name_zh, a.name_en, a.boundary
FROM register.area a LEFT JOIN register.area p ON p.area_id = a.parent_id;

CREATE VIEW public.organisations AS
SELECT o.id, o.name_zh, o.name_en, o.phone, o.address, o.credit_code,
       ARRAY(SELECT k.kind FROM register.organisation_kind k WHERE k.organisation_id = o.organisation_id ORDER BY 1) AS kinds
FROM register.organisation o;

CREATE VIEW public.equipment AS
SELECT e.id, e.class, e.class_name_zh, e.class_name_en, e.profile, e.profile_version, e.edge, e.name_zh, e.name_en,
       a.id AS area, a.name_zh AS area_zh, a.name_en AS area_en,
       ow.id AS owner, us.id AS "user", ma.id AS maintainer,
       ow.name_zh AS owner_zh, ow.name_en AS owner_en, ow.phone AS owner_phone,
       us.name_zh AS user_zh, us.name_en AS user_en, us.phone AS user_phone,
       ma.name_zh AS maintainer_zh, ma.name_en AS maintainer_en, ma.phone AS maintainer_phone,
       st.status, e.registration_code, e.model, e.address, e.latitude, e.longitude,
       o.online, o.since AS online_since, greatest(o.heard, ed.heartbeat) AS heard, e.retired_at
FROM register.equipment e
LEFT JOIN register.equipment_area ea ON ea.equipment_id = e.equipment_id AND ea.valid_to IS NULL
LEFT JOIN register.area a ON a.area_id = ea.area_id
LEFT JOIN register.equipment_party po ON po.equipment_id = e.equipment_id AND po.role = 'owner' AND po.valid_to IS NULL
LEFT JOIN register.organisation ow ON ow.organisation_id = po.organisation_id
LEFT JOIN register.equipment_party pu ON pu.equipment_id = e.equipment_id AND pu.role = 'user' AND pu.valid_to IS NULL
LEFT JOIN register.organisation us ON us.organisation_id = pu.organisation_id
LEFT JOIN register.equipment_party pm ON pm.equipment_id = e.equipment_id AND pm.role = 'maintainer' AND pm.valid_to IS NULL
LEFT JOIN register.organisation ma ON ma.organisation_id = pm.organisation_id
LEFT JOIN register.equipment_status st ON st.equipment_id = e.equipment_id AND st.valid_to IS NULL
LEFT JOIN store.equipment_online o ON o.equipment = e.id
LEFT JOIN store.edge ed ON ed.edge = o.edge;

CREATE VIEW public.signals AS
SELECT equipment, point, kind, unit, "group", name_zh, name_en, enum, low, high, limits, registered, retired_at,
       signal_id AS ordinal                           -- a profile's points in the profile's order
FROM store.signal;

CREATE VIEW public.samples AS
SELECT g.equipment, g.point, s.time, s.value, s.quality
FROM store.sample s JOIN store.signal g USING (signal_id);

CREATE VIEW public.latest AS
SELECT g.equipment, g.point, l.time, l.value, l.quality, l.changed_at
FROM store.latest l JOIN store.signal g USING (signal_id);

CREATE VIEW public.events AS
SELECT event_id, equipment, time, scheme, code, state, attributes, edge FROM store.event;

CREATE VIEW public.findings AS
SELECT finding_id AS id, equipment, point, detector, onset, raised, cleared, score, evidence, late FROM store.finding;

CREATE VIEW public.edges AS
SELECT edge, heartbeat, epoch, epoch_at FROM store.edge;

CREATE VIEW public.online_history AS
SELECT equipment, time, online FROM store.equipment_online_history;

CREATE VIEW public.alarms AS
SELECT m.alarm_id AS id, m.equipment, m.point, m.detector, m.state, m.priority, m.text_zh, m.text_en,
       m.consequence_zh, m.consequence_en, m.action_zh, m.action_en, m.onset, m.raised_at, m.acknowledged_at,
       m.acknowledged_by, m.acknowledge_note, m.cleared_at, m.late, m.evidence, m.class,
       a.id AS area, a.name_zh AS area_zh, a.name_en AS area_en,
       ow.id AS owner, us.id AS "user", ma.id AS maintainer,
       ow.name_zh AS owner_zh, ow.name_en AS owner_en, ow.phone AS owner_phone,
       us.name_zh AS user_zh, us.name_en AS user_en, us.phone AS user_phone,
       ma.name_zh AS maintainer_zh, ma.name_en AS maintainer_en, ma.phone AS maintainer_phone,
       e.name_zh AS equipment_zh, e.name_en AS equipment_en, e.address
FROM alarm.alarm m
LEFT JOIN register.area a ON a.area_id = m.area_id
LEFT JOIN register.organisation ow ON ow.organisation_id = m.owner_id
LEFT JOIN register.organisation us ON us.organisation_id = m.user_id
LEFT JOIN register.organisation ma ON ma.organisation_id = m.maintainer_id
LEFT JOIN register.equipment e ON e.id = m.equipment;

CREATE VIEW public.alarm_history AS
SELECT history_id, alarm_id, at, transition, from_state, to_state, actor, reason, note FROM alarm.history;

CREATE VIEW public.ingest_progress AS
SELECT edge, epoch, accepted,
       int8multirange(int8range(0, upper(accepted + dropped))) - accepted - dropped AS missing, samples
FROM store.progress WHERE service = 'ingest';
