"""From the log into the store, exactly once. See docs/ingest.md."""
