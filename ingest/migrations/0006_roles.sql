-- One role per service with no more than it needs; logins of services are members of these. Roles belong to the whole
-- server, so they may exist already, and two databases may make them at one time.
DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['vigil_reader', 'vigil_ingest', 'vigil_analyze', 'vigil_alert', 'vigil_console'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;                                 -- made just now by another migration
            END;
        END IF;
    END LOOP;
    BEGIN
        -- so that an ingest can end the session of another that froze in mid-transaction
        GRANT pg_signal_backend, pg_read_all_stats TO vigil_ingest;
    EXCEPTION WHEN insufficient_privilege OR unique_violation OR internal_error THEN
        RAISE NOTICE 'pg_signal_backend is not granted to vigil_ingest: workers must share one login';
    END;
END $$;

-- vigil_reader: the views, and nothing below them.
GRANT USAGE ON SCHEMA public TO vigil_reader, vigil_console, vigil_alert, vigil_analyze, vigil_ingest;
GRANT SELECT ON public.areas, public.organisations, public.equipment, public.signals, public.samples, public.latest,
    public.events, public.findings, public.edges, public.online_history, public.alarms, public.alarm_history,
    public.ingest_progress
    TO vigil_reader, vigil_console, vigil_alert, vigil_analyze;

-- vigil_ingest: fills the register and the store; never touches alarms, never deletes a reading.
GRANT USAGE ON SCHEMA store, register TO vigil_ingest;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA register TO vigil_ingest;
GRANT DELETE ON register.organisation_kind TO vigil_ingest;
REVOKE UPDATE ON register.audit FROM vigil_ingest;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA store TO vigil_ingest;
GRANT DELETE ON store.unledgered TO vigil_ingest;
REVOKE INSERT, UPDATE ON store.snapshot FROM vigil_ingest;
REVOKE UPDATE ON store.sample, store.event FROM vigil_ingest;

-- vigil_analyze: its place on the log and its snapshots; its findings go over the log.
GRANT USAGE ON SCHEMA store, register TO vigil_analyze;
GRANT SELECT ON ALL TABLES IN SCHEMA register TO vigil_analyze;
GRANT SELECT ON store.signal, store.sample, store.edge, store.equipment_online TO vigil_analyze;
GRANT SELECT, INSERT, UPDATE ON store.log_position, store.progress TO vigil_analyze;
GRANT SELECT, INSERT, UPDATE, DELETE ON store.snapshot TO vigil_analyze;
GRANT SELECT, INSERT ON store.event, store.dead_letter TO vigil_analyze;

-- vigil_alert: alone changes alarms.
GRANT USAGE ON SCHEMA store, register, alarm TO vigil_alert;
GRANT SELECT ON ALL TABLES IN SCHEMA register TO vigil_alert;
GRANT SELECT ON store.signal, store.finding, store.edge, store.equipment_online, store.latest TO vigil_alert;
GRANT SELECT, INSERT, UPDATE ON store.log_position, store.progress TO vigil_alert;
GRANT SELECT, INSERT ON store.event, store.dead_letter TO vigil_alert;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA alarm TO vigil_alert;
REVOKE UPDATE ON alarm.history FROM vigil_alert;

-- vigil_console: reads, and asks for acknowledgements by command rows.
GRANT USAGE ON SCHEMA store, register, alarm TO vigil_console;
GRANT SELECT ON ALL TABLES IN SCHEMA register, alarm TO vigil_console;
GRANT SELECT ON store.signal, store.sample, store.latest, store.event, store.finding, store.edge,
    store.equipment_online, store.equipment_online_history TO vigil_console;
GRANT INSERT ON alarm.command TO vigil_console;
