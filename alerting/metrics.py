"""Metrics of alerting: a written contract (docs/alerting.md). Labels are enums of our own, so their number is bounded."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

DECISIONS = Counter("vigil_alert_decisions_total", "Decisions of the lifecycle, by reason", ["reason"])
DEAD_LETTERS = Counter("vigil_alert_dead_letters_total", "Findings set aside, by reason", ["reason"])
DUPLICATES = Counter("vigil_alert_duplicate_records_total", "Records of the log that were accepted before")
RECORDS = Counter("vigil_alert_records_total", "Records taken from the log")
COMMANDS = Counter("vigil_alert_commands_total", "Commands handled, by outcome", ["outcome"])
COMMAND_DELAY = Histogram(
    "vigil_alert_command_delay_seconds",
    "From a command's row to its outcome, by the database's clock",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30),
)
FINDING_DELAY = Histogram(
    "vigil_alert_finding_delay_seconds",
    "From a record on the log to its alarms committed",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300),
)
LAG = Gauge("vigil_alert_lag_records", "Findings records on the log that are not processed yet")
ALARMS = Gauge("vigil_alert_alarms", "Alarms that are not normal, by state", ["state"])
NOTICES = Counter("vigil_alert_notices_total", "Attempts to tell, by result", ["result"])
NOTICES_OPEN = Gauge("vigil_alert_notices_open", "Notices that are due and not yet told")
RESTARTS = Counter("vigil_alert_restarts_total", "Times a part began again, by part and error", ["part", "error"])
