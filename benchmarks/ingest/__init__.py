"""Ingest under load, from a log that is already filled to rows in the columnstore. See benchmarks.ingest.__main__."""
