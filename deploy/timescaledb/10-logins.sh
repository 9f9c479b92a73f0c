#!/bin/sh
# Once, when the database is made: an owner that migrates, and one login a service, each a member of its role only.
# Passwords come from files in SECRETS; psql quotes them.
set -eu
SECRETS="${SECRETS:-/run/secrets}"
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    -v owner="$(cat "$SECRETS/store_owner")" -v analyze="$(cat "$SECRETS/store_analyze")" \
    -v alert="$(cat "$SECRETS/store_alert")" -v console="$(cat "$SECRETS/store_console")" \
    -v reader="$(cat "$SECRETS/store_reader")" -v database="$POSTGRES_DB" <<'SQL'
CREATE EXTENSION IF NOT EXISTS timescaledb;
CREATE ROLE vigil_reader NOLOGIN;
CREATE ROLE vigil_ingest NOLOGIN;
CREATE ROLE vigil_analyze NOLOGIN;
CREATE ROLE vigil_alert NOLOGIN;
CREATE ROLE vigil_console NOLOGIN;
CREATE ROLE vigil_owner LOGIN PASSWORD :'owner';
GRANT vigil_ingest TO vigil_owner;
GRANT pg_signal_backend TO vigil_ingest;
CREATE ROLE vigil_analyze_login LOGIN PASSWORD :'analyze';
GRANT vigil_analyze TO vigil_analyze_login;
CREATE ROLE vigil_alert_login LOGIN PASSWORD :'alert';
GRANT vigil_alert TO vigil_alert_login;
CREATE ROLE vigil_console_login LOGIN PASSWORD :'console';
GRANT vigil_console TO vigil_console_login;
CREATE ROLE vigil_reader_login LOGIN PASSWORD :'reader';
GRANT vigil_reader TO vigil_reader_login;
ALTER DATABASE :"database" OWNER TO vigil_owner;
ALTER SCHEMA public OWNER TO vigil_owner;
REVOKE CONNECT ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO vigil_owner, vigil_analyze_login, vigil_alert_login, vigil_console_login,
    vigil_reader_login;
SQL
