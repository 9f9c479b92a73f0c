"""Who may ask: Host, Origin, tokens; what every answer forbids; where the console may listen."""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards.console.service import bind, check
from dashboards.console.session import TRIES, Sessions
from telemetry.clock import US_PER_S, SystemClock
from telemetry.errors import ConfigError
from telemetry.settings import Settings
from tests.dashboards.console.conftest import RunningConsole, running_console

TOKEN = "correct-horse-battery"


@dataclass(frozen=True, slots=True)
class StandingClock(SystemClock):
    at_us: int = 0

    def now_us(self) -> int:
        return self.at_us


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8480", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_another_name_in_host_is_refused_on_loopback_too(api: httpx.Client, host: str) -> None:
    answer = api.get("/api/v1/summary", headers={"Host": host})
    assert answer.status_code in {400, 403}
    assert "equipment" not in answer.json() if answer.status_code == 403 else True


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:8480", "LOCALHOST"])
def test_loopbacks_names_are_accepted_on_any_forwarded_port(api: httpx.Client, host: str) -> None:
    assert api.get("/api/v1/summary", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "https://{host}", "http://x.{host}"],
)
def test_another_sites_origin_is_refused_for_reading_and_writing(api: httpx.Client, origin: str) -> None:
    origin = origin.format(host=api.base_url.netloc.decode())
    assert api.get("/api/v1/summary", headers={"Origin": origin}).status_code == 403
    answer = api.post(
        "/api/v1/alarms/a1/acknowledge",
        json={"by": "x"},
        headers={"Origin": origin, "Idempotency-Key": "from-elsewhere"},
    )
    assert answer.status_code == 403
    assert answer.json()["code"] == "origin-refused"


def test_its_own_origin_is_accepted(console: RunningConsole, api: httpx.Client) -> None:
    assert api.get("/api/v1/summary", headers={"Origin": console.url}).status_code == 200


def test_a_request_that_the_browser_says_is_from_another_site_is_refused(api: httpx.Client) -> None:
    answer = api.get("/api/v1/summary", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"})
    assert answer.status_code == 403
    link = api.get("/", headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"})
    assert link.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/docs", "/api/v1/summary", "/static/js/main.js", "/api/v1/none", "/healthz"]
)
def test_every_answer_forbids_foreign_scripts_frames_and_sniffing(api: httpx.Client, path: str) -> None:
    headers = api.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


@pytest.mark.parametrize("page", ["/", "/api/docs"])
def test_pages_have_no_inline_script_and_nothing_from_elsewhere(api: httpx.Client, page: str) -> None:
    text = api.get(page).text
    assert not re.search(r"<script(?![^>]*\bsrc=)", text)
    assert not re.search(r"\son\w+=|style=", text)
    sources = re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    assert sources
    assert all(source.startswith("/") and not source.startswith("//") for source in sources)
    assert all(api.get(source).status_code == 200 for source in sources)


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py"])
def test_nothing_outside_static_is_served(api: httpx.Client, path: str) -> None:
    assert api.get(path).status_code == 404


@pytest.fixture(scope="module")
def locked(console: RunningConsole, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """A console that wants its token, on all addresses."""
    with running_console(
        console.store_url, tmp_path_factory.mktemp("locked"), console_token=TOKEN, console_origins=("console.example",)
    ) as running:
        yield running


def test_without_the_token_only_the_empty_page_is_served(locked: RunningConsole) -> None:
    with locked.client() as client:
        for path in (
            "/api/v1/summary",
            "/api/v1/equipment",
            "/api/v1/stream",
            "/api/docs",
            "/api/openapi.json",
            "/api/v1/equipment/static/",
            "/metrics",
        ):
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/").status_code == 200
        assert client.get("/healthz").json()["ready"] is True
        assert client.get("/api/v1/session").json() == {"needed": True, "authorised": False}


def test_the_token_itself_opens_every_endpoint(locked: RunningConsole) -> None:
    with locked.client(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.get("/api/v1/summary").status_code == 200
        assert "vigil_console_requests_total" in client.get("/metrics").text
    with locked.client(headers={"Authorization": "Bearer wrong-token-entirely"}) as client:
        assert client.get("/api/v1/summary").status_code == 401


def test_a_log_in_gives_a_cookie_that_no_script_and_no_other_site_can_use(locked: RunningConsole) -> None:
    with locked.client() as client:
        assert client.post("/api/v1/session", json={"token": "wrong-token"}).status_code == 401
        answer = client.post("/api/v1/session", json={"token": TOKEN})
        assert answer.status_code == 200
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert client.get("/api/v1/summary").status_code == 200
        client.delete("/api/v1/session")
        assert client.get("/api/v1/summary").status_code == 401


def test_a_forged_or_expired_cookie_is_refused(locked: RunningConsole) -> None:
    sessions = Sessions(TOKEN, SystemClock())
    value = sessions.exchange(TOKEN)
    assert value is not None
    expiry, _, mac = value.partition(".")
    assert sessions.authorised({}, {"vigil_session": value})
    for forged in (f"{int(expiry) + 1}.{mac}", f"{expiry}.{'0' * 64}", "", ".", f"{expiry}.", f"1.{mac}", "é.é"):
        assert not sessions.authorised({}, {"vigil_session": forged})
    assert not Sessions("another-token-altogether", SystemClock()).authorised({}, {"vigil_session": value})


def test_a_cookie_of_our_own_ends_with_its_time() -> None:
    value = Sessions(TOKEN, SystemClock()).exchange(TOKEN)
    assert value is not None
    expiry_us = int(value.partition(".")[0]) * US_PER_S
    for passed_us, valid in ((-60 * US_PER_S, True), (US_PER_S, False)):
        sessions = Sessions(TOKEN, StandingClock(at_us=expiry_us + passed_us))
        assert sessions.authorised({}, {"vigil_session": value}) is valid


def test_many_wrong_tokens_are_stopped() -> None:
    sessions = Sessions(TOKEN, SystemClock())
    for _ in range(TRIES):
        assert not sessions.blocked()
        assert sessions.exchange("guess") is None
    assert sessions.blocked()


def test_configured_names_are_accepted_as_host_and_origin(locked: RunningConsole) -> None:
    with locked.client(headers={"Host": "console.example", "Authorization": f"Bearer {TOKEN}"}) as client:
        assert client.get("/api/v1/summary").status_code == 200
        assert client.get("/api/v1/summary", headers={"Origin": "http://console.example"}).status_code == 200
        assert client.get("/api/v1/summary", headers={"Origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"listen": "0.0.0.0:8480"}, "VIGIL_LISTEN"),
        ({"listen": "192.168.1.5:8480"}, "VIGIL_LISTEN"),
        ({"console_token": "short"}, "VIGIL_CONSOLE_TOKEN"),
        ({"tls_cert_file": "/nowhere/cert.pem"}, "VIGIL_TLS_CERT_FILE"),
    ],
)
def test_an_unsafe_or_broken_setting_is_refused_by_its_name(settings: dict[str, str], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(Settings(**settings))  # type: ignore[arg-type]
    assert key in {fault.key for fault in error.value.faults}


def test_off_loopback_with_a_token_it_may_listen() -> None:
    check(Settings(listen="0.0.0.0:8480", console_token=TOKEN))


def test_a_port_in_use_is_told_by_name() -> None:
    with bind("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=f"VIGIL_LISTEN=127.0.0.1:{port}"):
            bind(f"127.0.0.1:{port}")


def test_over_tls_the_cookie_is_secure(console: RunningConsole, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *files, *subject]
    subprocess.run(request, check=True, capture_output=True)
    more: dict[str, Any] = {"tls_cert_file": certificate, "tls_key_file": key, "console_token": TOKEN}
    with running_console(console.store_url, tmp_path, **more) as running:
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(base_url=running.url.replace("http", "https"), verify=trusted) as client:
            answer = client.post("/api/v1/session", json={"token": TOKEN})
            assert "Secure" in answer.headers["set-cookie"]
            assert client.get("/api/v1/summary").status_code == 200
