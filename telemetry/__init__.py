"""The shared language of the services: batches, events, quality, profiles, the plant, the log, settings, errors."""
