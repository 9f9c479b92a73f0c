"""Which coroutine and which listening address belong to each service's name."""

from __future__ import annotations

from telemetry.service import run_service
from telemetry.settings import Settings


def run(name: str, settings: Settings) -> int:
    """Runs one service until it is told to stop. Returns its exit status."""
    match name:
        case "edge":
            from edge.service import new_event_loop
            from edge.service import run as edge

            return run_service(name, settings, edge, listen=settings.edge_listen, loop_factory=new_event_loop)
        case "ingest":
            from ingest.service import run as ingest

            return run_service(name, settings, ingest, listen=settings.ingest_listen)
        case "analyze":
            from analytics.service import run as analyze

            return run_service(name, settings, analyze, listen=settings.analyze_listen)
        case "alert":
            from alerting.service import run as alert

            return run_service(name, settings, alert, listen=settings.alert_listen)
        case "console":
            from dashboards.console.service import run as console

            return run_service(name, settings, console, listen=None)
        case _:
            raise ValueError(f"expected a service's name, found {name!r}")
