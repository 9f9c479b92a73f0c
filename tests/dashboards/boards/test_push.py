"""Pushing the boards: into the folder, over what was there, and a clear word where the server says no.

The server here speaks the four endpoints that a push uses; test_grafana.py pushes to a real one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dashboards.boards.push import PushFailed, push_boards
from tests.fixtures.ports import free_port

TOKEN = "a-token"


class Grafana(ThreadingHTTPServer):
    """What it was told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders: set[str] = set()
        self.datasources = {"vigil"}
        self.boards: dict[str, dict[str, Any]] = {}
        self.saved = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Grafana

    def do_GET(self) -> None:
        kind, _, uid = self.path.removeprefix("/api/").rpartition("/")
        known = {"folders": self.server.folders, "datasources/uid": self.server.datasources}.get(kind, set())
        self._answer(200 if uid in known else 404, {"uid": uid, "message": "not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/folders":
            self.server.folders.add(body["uid"])
        else:
            assert self.path == "/api/dashboards/db"
            assert body["overwrite"] is True
            assert body["folderUid"] in self.server.folders
            self.server.boards[body["dashboard"]["uid"]] = body["dashboard"]
            self.server.saved += 1
        self._answer(200, {"status": "success"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            status, body = 401, {"message": "Unauthorized"}
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    server = Grafana()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_boards_of_both_languages_are_put_into_the_folder_and_again_over_themselves(grafana: Grafana) -> None:
    uids = push_boards(grafana.url, TOKEN)
    assert set(uids) == {f"vigil-{name}-{lang}" for name in ("supervision", "fleet", "unit") for lang in ("zh", "en")}
    assert set(grafana.boards) == set(uids)
    assert grafana.folders == {"vigil"}
    push_boards(grafana.url, TOKEN, ["zh"])
    assert grafana.saved == 9


def test_a_missing_data_source_is_said_before_anything_is_pushed(grafana: Grafana) -> None:
    grafana.datasources.clear()
    with pytest.raises(PushFailed, match="data source with uid vigil"):
        push_boards(grafana.url, TOKEN)
    assert grafana.boards == {}


def test_a_refused_token_and_an_absent_server_are_said_without_the_secret(grafana: Grafana) -> None:
    with pytest.raises(PushFailed, match="Unauthorized"):
        push_boards(grafana.url, "wrong")
    with pytest.raises(PushFailed) as failed:
        push_boards(f"http://user:secret@127.0.0.1:{free_port()}", None)
    assert "secret" not in str(failed.value)
