"""The console as a service: without a database, with one that goes away, stopping, what it says of itself."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from dashboards.console.app import STATIC
from dashboards.console.texts import TEXTS
from telemetry import quality
from telemetry.messages import VIGIL_SCHEME
from tests.dashboards.console.conftest import RunningConsole, running_console, told
from tests.dashboards.console.seed import Seed, utc_now
from tests.fixtures.store import StoreServer, database_url, execute, make_template
from tests.fixtures.waiting import eventually

ENDPOINTS = {
    ("get", "/healthz"),
    ("get", "/metrics"),
    ("get", "/api/v1/equipment"),
    ("get", "/api/v1/equipment/{id}"),
    ("get", "/api/v1/equipment/{id}/samples"),
    ("get", "/api/v1/alarms"),
    ("post", "/api/v1/alarms/{id}/acknowledge"),
    ("get", "/api/v1/stream"),
}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[StoreServer]:
    """A server that this test may kill, seeded."""
    server = StoreServer("plain")
    try:
        server.start()
        make_template(server.url)
        execute(server.url, "CREATE DATABASE console_seeded TEMPLATE vigil_template")
        with psycopg.connect(_seeded(server)) as connection:
            Seed(connection, now=utc_now()).fill(minutes=1)
        yield server
    finally:
        server.remove()


def _seeded(server: StoreServer) -> str:
    return database_url(server.url, "console_seeded")


def test_a_database_that_goes_away_is_told_and_found_again(own_server: StoreServer, tmp_path: Path) -> None:
    with running_console(_seeded(own_server), tmp_path) as console, console.client() as client:
        assert client.get("/api/v1/summary").status_code == 200
        with client.stream("GET", "/api/v1/stream") as stream:
            messages = told(stream)
            next(messages)
            own_server.kill()
            assert next(m for m in messages if m.kind == "store").content["store"] == "away"
            answer = client.get("/api/v1/summary")
            assert answer.status_code == 503
            assert answer.json()["code"] == "store-unavailable"
            assert answer.headers["retry-after"]
            assert client.get("/healthz").status_code == 503
            assert client.get("/").status_code == 200
            own_server.start()
            assert next(m for m in messages if m.kind == "store").content["store"] == "ok"
            eventually(lambda: client.get("/api/v1/summary").status_code == 200)
            assert client.get("/healthz").status_code == 200
            execute(
                _seeded(own_server),
                "INSERT INTO alarm.history (alarm_id, at, transition, from_state, to_state, actor)"
                " VALUES ('a1', now(), 'escalate', 'unacknowledged', 'unacknowledged', 'alert')",
            )
            assert next(m for m in messages if m.kind == "alarm").content["id"] == "a1"


def test_it_starts_without_a_database_and_waits_for_the_schema(plain_server: StoreServer, tmp_path: Path) -> None:
    url = database_url(plain_server.url, "console_late")
    execute(plain_server.url, "DROP DATABASE IF EXISTS console_late")
    with running_console(url, tmp_path, wait=False) as console, console.client() as client:
        answer = client.get("/api/v1/alarms")
        assert answer.status_code == 503
        assert "store" in client.get("/healthz").json()["waiting_for"]
        assert client.get("/api/v1/texts").status_code == 200
        execute(plain_server.url, "CREATE DATABASE console_late")
        eventually(lambda: "alarms" in client.get("/healthz").json()["waiting_for"]["store"])
        execute(plain_server.url, "DROP DATABASE console_late WITH (FORCE)")
        execute(plain_server.url, "CREATE DATABASE console_late TEMPLATE vigil_template")
        eventually(lambda: client.get("/healthz").status_code == 200)
        assert client.get("/api/v1/alarms").json() == {"items": [], "next": None}
    execute(plain_server.url, "DROP DATABASE console_late WITH (FORCE)")


def test_it_stops_quickly_with_streams_open(console: RunningConsole, tmp_path: Path) -> None:
    with (
        running_console(console.store_url, tmp_path) as running,
        running.client() as client,
        client.stream("GET", "/api/v1/stream") as stream,
    ):
        messages = told(stream)
        assert next(messages).kind == "hello"
        assert running.stop() < 3.0


def test_the_schema_lists_every_endpoint_of_the_contract(api: httpx.Client) -> None:
    spec = api.get("/api/openapi.json").json()
    found = {(method, path) for path, item in spec["paths"].items() for method in item}
    assert found >= ENDPOINTS
    acknowledge = spec["paths"]["/api/v1/alarms/{id}/acknowledge"]["post"]
    assert {"200", "202", "404", "409"} <= set(acknowledge["responses"])
    assert any(p["name"] == "idempotency-key" and p["required"] for p in acknowledge["parameters"])


def test_metrics_count_requests_by_template_not_by_unit(api: httpx.Client) -> None:
    api.get("/api/v1/equipment/lift-0001")
    text = api.get("/metrics").text
    assert 'vigil_console_requests_total{route="/api/v1/equipment/{id}",status="2xx"}' in text
    assert "lift-0001" not in text
    assert "vigil_console_store_up " in text


def test_every_text_exists_in_both_languages_with_the_same_blanks() -> None:
    for key, (zh, en) in TEXTS.items():
        assert zh.strip(), key
        assert en.strip(), key
        assert set(re.findall(r"\{\w+\}", zh)) == set(re.findall(r"\{\w+\}", en)) or key.endswith(".one"), key


def test_every_text_that_the_page_asks_for_exists() -> None:
    asked: set[str] = set()
    for script in (STATIC / "js").glob("*.js"):
        asked |= set(re.findall(r"\bt\('([\w.]+)'", script.read_text(encoding="utf-8")))
    assert len(asked) > 60
    assert not asked - TEXTS.keys()


def test_every_word_for_a_state_has_a_text() -> None:
    words = {f"quality.{word}" for word in quality.REASONS.values()}
    words |= {f"priority.{p}" for p in ("critical", "high", "medium", "low")}
    words |= {f"connection.{c}" for c in ("online", "offline", "silent", "unknown")}
    states = ("unacknowledged", "acknowledged", "returned_unacknowledged", "normal", "shelved", "suppressed")
    words |= {f"state.{state}" for state in (*states, "out_of_service")}
    assert not words - TEXTS.keys()
    assert VIGIL_SCHEME == "vigil"


def test_vendored_libraries_are_what_their_note_says() -> None:
    note = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    noted = dict(re.findall(r"`([\w-]+\.(?:js|css))` \| ([0-9a-f]{64})", note))
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STATIC / "vendor").iterdir()
        if path.suffix in (".js", ".css")
    }
    assert noted == found
    for library in ("preact", "htm", "uplot"):
        assert (STATIC / "vendor" / f"{library}.LICENSE").stat().st_size > 500


def test_nothing_that_the_page_is_made_of_evaluates_text_or_reaches_out() -> None:
    for path in STATIC.rglob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function|document\.write|import\(", text), path
    for path in [*(STATIC / "js").glob("*.js"), *STATIC.glob("*.html"), *STATIC.glob("*.css")]:
        assert not re.search(r"https?://", path.read_text(encoding="utf-8")), path


def test_a_request_takes_milliseconds(api: httpx.Client) -> None:
    api.get("/api/v1/equipment")
    started = time.monotonic()
    api.get("/api/v1/equipment")
    assert time.monotonic() - started < 1.0
