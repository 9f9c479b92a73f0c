"""The log protocol and its two implementations. `open_log` gives the one that a URL names."""

from __future__ import annotations

import re

from telemetry.errors import ConfigError, Fault
from telemetry.log.embedded import EmbeddedLog
from telemetry.log.protocol import Log
from telemetry.settings import Settings

__all__ = ["open_log"]


def open_log(settings: Settings) -> Log:
    """The log that `settings.log` names. Connects to nothing yet. Raises ConfigError."""
    kind, colon, rest = settings.log.partition(":")
    if kind == "embedded" and colon and not rest:
        return EmbeddedLog(settings.state_dir / "log", settings.log_max_bytes, settings.log_partitions)
    if kind in ("kafka", "kafkas") and rest.startswith("//"):
        # Here, not above: aiokafka costs each service of the embedded default 0.15 s of start and 15 MB.
        from telemetry.log.kafka import KafkaLog
        from telemetry.log.kafka_access import access

        directory = settings.state_dir / "log"
        return KafkaLog(access(settings), directory, settings.log_partitions, settings.log_replication)
    expected = "embedded: or kafka://host:port or kafkas://host:port"
    found = re.sub("//.*@", "//…@", settings.log)  # a login, which has no place there
    raise ConfigError([Fault("settings", 0, "VIGIL_LOG", expected, repr(found))])
