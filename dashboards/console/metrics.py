"""What the console counts about itself. Names, units and labels are written down in docs/console.md."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

REQUESTS: Final = Counter(
    "vigil_console_requests_total", "Requests answered, by route template and status class.", ["route", "status"]
)
REQUEST_SECONDS: Final = Histogram(
    "vigil_console_request_seconds", "Time to the end of an answer (streams are not counted).", ["route"]
)
STREAM_CLIENTS: Final = Gauge("vigil_console_stream_clients", "Clients connected to /api/v1/stream now.")
STREAM_RESETS: Final = Counter(
    "vigil_console_stream_resets_total", "Clients that were too slow or away too long, and were told to read again."
)
STORE_UP: Final = Gauge("vigil_console_store_up", "1 while the database answers.")
ACKNOWLEDGES: Final = Counter("vigil_console_acknowledges_total", "Acknowledge requests, by outcome.", ["outcome"])
