-- Data of everything that a store can hold, by the version that brought its table. BASE: an hour four days ago.

-- since 1
INSERT INTO register.area (id, level, name_zh, name_en) VALUES
    ('xinzhuang', 'street', '莘庄镇', 'Xinzhuang');
INSERT INTO register.organisation (id, name_zh, name_en, phone) VALUES
    ('acme', '某某公司', 'Acme', '021');
INSERT INTO register.organisation_kind
SELECT organisation_id, 'use_unit'
FROM register.organisation;
INSERT INTO register.equipment (id, class, class_name_zh, class_name_en, profile, profile_version, edge, name_zh, name_en, registration_code) VALUES
    ('a', 'boiler', '锅炉', 'boiler', 'sola-boiler', 1, 'edge-1', '一', 'one', '11203101122020010007'), ('b', 'elevator', '电梯', 'elevator', 'lift-monitor', 2, 'edge-1', '二', 'two', NULL);
INSERT INTO register.equipment_party
SELECT equipment_id, organisation_id, 'owner', '2026-01-01', NULL
FROM register.equipment, register.organisation;
INSERT INTO register.equipment_area
SELECT equipment_id, area_id, '2026-01-01', NULL
FROM register.equipment, register.area;
INSERT INTO register.equipment_status
SELECT equipment_id, 'in_use', '2026-01-01', NULL, NULL
FROM register.equipment;
INSERT INTO register.audit (actor, action, subject) VALUES
    ('edge-1', 'add', 'equipment a');

-- since 2
INSERT INTO store.signal (name, equipment, point, name_hash, registered, unit, low, high) VALUES
    ('a/x', 'a', 'x', 11, true, '°C', 0, 100), ('a/y', 'a', 'y', 12, true, '', NULL, NULL), ('b/x', 'b', 'x', 13, false, '', NULL, NULL);
INSERT INTO store.log_position VALUES
    ('ingest', 'vigil.telemetry', 0, 42, 'edge-1', 5, 41, 99, now()), ('alert', 'vigil.findings', 0, 7, 'analyze', 6, 6, 98, now());
INSERT INTO store.progress (service, edge, epoch, accepted, dropped, samples, samples_dropped) VALUES
    ('ingest', 'edge-1', 5, '{[0,20),[25,42)}', '{[20,25)}', 720, 50);
INSERT INTO store.ledger
SELECT 'edge-1', 5, 'a', h, 80, 18446744073709551615, 0, 0
FROM generate_series(BASE, BASE + interval '5 hours', '1 hour') h;
INSERT INTO store.ledger_through VALUES
    ('edge-1', 5, 40);
INSERT INTO store.unledgered VALUES
    ('edge-1', 5, 41, 41, '{a}', '{1000}', '{3}');
INSERT INTO store.dead_letter (service, topic, partition, "offset", edge, epoch, seq, reason, detail, samples, key, headers, value) VALUES
    ('ingest', 'vigil.telemetry', 0, 3, 'edge-1', 5, 3, 'future', 'by an hour', 2, '\x61', '[]', '\x00ff');
INSERT INTO store.dead_sample VALUES
    ('edge-1', 5, 'a', BASE, 2, 77);
INSERT INTO store.latest (signal_id, time, value, quality)
SELECT signal_id, BASE, 1.5, 192
FROM store.signal;
INSERT INTO store.event (equipment, time, scheme, code, state, attributes, edge) VALUES
    ('b', BASE, 'gbt24476-2017', '4', 'on', '{"floor": 3}', 'edge-1'), ('b', BASE + interval '1 min', 'gbt24476-2017', '4', 'off', '{}', 'edge-1');
INSERT INTO store.finding VALUES
    ('f1', 'a', 'x', 'limit:high', BASE, BASE, NULL, 1.0, '{}', false);
INSERT INTO store.edge VALUES
    ('edge-1', now(), 5, now(), now());
INSERT INTO store.equipment_online VALUES
    ('a', 'edge-1', true, now(), now()), ('b', 'edge-1', false, now(), now());
INSERT INTO store.equipment_online_history VALUES
    ('a', BASE, true), ('b', BASE, false);
INSERT INTO store.snapshot VALUES
    ('analyze', 'vigil.telemetry', 0, 42, now(), '\x01');

-- since 3
SELECT store.ensure_sample_partitions(BASE, BASE + interval '6 hours');
-- every tenth without a value, every seventh bad, some infinite or not a number
INSERT INTO store.sample
SELECT signal_id, BASE + n * interval '90 s' + signal_id * interval '1 s', CASE WHEN n % 10 = 0 THEN NULL WHEN n % 23 = 0 THEN 'Infinity'::float8 WHEN n % 29 = 0 THEN 'NaN' ELSE signal_id * 100 + n END, CASE WHEN n % 10 = 0 THEN 24 WHEN n % 7 = 0 THEN 0 WHEN n % 3 = 0 THEN 64 ELSE 192 END
FROM store.signal, generate_series(0, 239) n;

-- since 4
INSERT INTO alarm.alarm (alarm_id, equipment, point, detector, state, priority, text_zh, text_en, onset, raised_at, acknowledged_at, acknowledged_by, owner_id)
SELECT 'f1', 'a', 'x', 'limit:high', 'acknowledged', 'high', '高', 'high', BASE, BASE, now(), 'wang', organisation_id
FROM register.organisation;
INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor) VALUES
    ('f1', now(), 'raise', 'normal', 'unacknowledged', 'alert'), ('f1', now(), 'acknowledge', 'unacknowledged', 'acknowledged', 'wang');
INSERT INTO alarm.command (command_id, alarm_id, command, by) VALUES
    ('k1', 'f1', 'acknowledge', 'wang');
INSERT INTO alarm.notice (alarm_id, channel, transition, body) VALUES
    ('f1', 'webhook', 'raise', '{}');
INSERT INTO alarm.early_clear (alarm_id, cleared_at) VALUES
    ('f2', BASE);

-- since 7
SELECT store.apply_retention('90 days', '30 days');

-- late
INSERT INTO store.sample
SELECT signal_id, BASE + interval '30 min' + n * interval '0.5 s', 5000 + n, 192
FROM store.signal, generate_series(1, 5) n;
