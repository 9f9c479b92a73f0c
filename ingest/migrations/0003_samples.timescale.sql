-- Samples in the columnstore. No unique index and no trigger: either turns Direct Compress off in silence.
-- Exactly-once is kept by store.progress and store.log_position, in the same transaction as the rows.
CREATE TABLE store.sample (
    signal_id int NOT NULL,
    time      timestamptz NOT NULL,
    value     float8,
    quality   smallint NOT NULL
) WITH (
    tsdb.hypertable, tsdb.partition_column = 'time', tsdb.chunk_interval = '1 day', tsdb.create_default_indexes = false,
    tsdb.segmentby = 'signal_id', tsdb.orderby = 'time'
);

CREATE FUNCTION store.ensure_sample_partitions(first timestamptz, last timestamptz) RETURNS void
    LANGUAGE sql AS $$ SELECT $$;                     -- TimescaleDB makes chunks by itself

-- For rows not yet in the columnstore; costs Direct Compress nothing.
CREATE INDEX sample_signal_time ON store.sample (signal_id, time DESC);
