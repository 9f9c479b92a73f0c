"""What every service does alike: /healthz, /metrics, waiting that is logged once, a clean stop, an honest exit status."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog

from telemetry.errors import ConfigError, ListenError
from telemetry.service import Health, cancel_all, serve_health, wait_until
from tests.fixtures.ports import free_port
from tests.fixtures.waiting import eventually


@pytest.fixture
def health() -> Health:
    return Health("ingest")


def serve(health: Health, token: str | None) -> Iterator[str]:
    server = serve_health("127.0.0.1:0", health, token=token)
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(health: Health) -> Iterator[str]:
    yield from serve(health, None)


@pytest.fixture
def guarded_url(health: Health) -> Iterator[str]:
    yield from serve(health, "t0ken")


def test_healthz_is_503_and_says_why_until_nothing_is_missing(health: Health, url: str) -> None:
    health.missing("store", "connection refused")
    answer = httpx.get(f"{url}/healthz")
    assert answer.status_code == 503
    assert answer.json() == {"service": "ingest", "ready": False, "waiting_for": {"store": "connection refused"}}
    health.missing("log", "no such file")
    health.found("store")
    assert httpx.get(f"{url}/healthz").json()["waiting_for"] == {"log": "no such file"}
    health.found("log")
    answer = httpx.get(f"{url}/healthz")
    assert (answer.status_code, answer.json()["ready"]) == (200, True)


def test_an_address_that_another_process_has_is_named_with_its_setting(health: Health, url: str) -> None:
    taken = url.removeprefix("http://")
    with pytest.raises(ListenError, match=f"^VIGIL_INGEST_LISTEN={taken}: Address already in use$"):
        serve_health(taken, health, token=None)


def test_waiting_is_logged_when_the_reason_changes_and_not_each_time(health: Health) -> None:
    with structlog.testing.capture_logs() as lines:
        for why in ("refused", "refused", "refused", "timed out"):
            health.missing("store", why)
        health.found("store")
        health.found("store")
    assert [(line["event"], line.get("why")) for line in lines] == [
        ("waiting", "refused"),
        ("waiting", "timed out"),
        ("found", None),
    ]


def test_metrics_are_prometheus_text(url: str) -> None:
    answer = httpx.get(f"{url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "python_info{" in answer.text
    assert httpx.get(f"{url}/elsewhere").status_code == 404


def test_metrics_ask_for_the_token_where_one_is_set_and_healthz_does_not(guarded_url: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "t0ken"},
        {"Authorization": "Basic t0ken"},
    ):
        answer = httpx.get(f"{guarded_url}/metrics", headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "python_info" not in answer.text
    assert httpx.get(f"{guarded_url}/metrics", headers={"Authorization": "Bearer t0ken"}).status_code == 200
    assert httpx.get(f"{guarded_url}/healthz").status_code == 200


def test_an_address_that_others_can_reach_needs_a_token(health: Health) -> None:
    with pytest.raises(
        ConfigError, match="VIGIL_INGEST_LISTEN: expected a loopback address, or VIGIL_METRICS_TOKEN_FILE"
    ):
        serve_health("0.0.0.0:0", health, token=None)
    server = serve_health("0.0.0.0:0", health, token="t0ken")
    server.shutdown()
    server.server_close()


async def test_waiting_ends_when_told_to_stop() -> None:
    stop = asyncio.Event()
    assert await wait_until(stop, 0.01) is False
    asyncio.get_running_loop().call_later(0.01, stop.set)
    start = time.monotonic()
    assert await wait_until(stop, 10.0) is True
    assert time.monotonic() - start < 5


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.telemetry.service_process", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_waits_becomes_ready_and_stops_cleanly_when_told(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    process = start("run", f"127.0.0.1:{port}", str(tmp_path), "edge-1")
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"

    def status() -> int:
        return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code

    eventually(lambda: status() == 503)
    (tmp_path / "part").touch()
    eventually(lambda: status() == 200)
    process.send_signal(number)
    _, logged = process.communicate(timeout=10)
    assert process.returncode == 0
    assert (tmp_path / "closed").read_text() == "cleanly"
    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["event"] for line in lines] == ["waiting", "found", "stopped"]
    assert {line["service"] for line in lines} == {"part-service"}


@pytest.mark.parametrize(
    ("cause", "status", "said"),
    [
        ("config", 2, "plant.yaml:3: site.id: expected a name, found nothing"),
        ("group", 2, "plant.yaml:3: site.id: expected a name, found nothing"),
        ("known", 1, "the database is away"),
        ("unknown", 1, "nobody expected this"),
    ],
)
def test_the_exit_status_says_what_ended_the_service(tmp_path: Path, cause: str, status: int, said: str) -> None:
    process = start("fail", "", str(tmp_path), cause)
    _, logged = process.communicate(timeout=20)
    assert process.returncode == status
    assert said in logged
    assert ("Traceback" in logged) == (cause == "unknown"), "a trace only for what nobody expected"


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed == 3:
                    raise

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(60))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancel_all(tasks)
    assert swallowed == 3
    assert all(task.cancelled() for task in tasks)
