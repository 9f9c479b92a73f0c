"""Puts the boards onto a Grafana server, into the folder Vigil, over what was there under the same uid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Final

import niquests
from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException

from dashboards.boards.build import build_boards, to_json
from dashboards.boards.sql import DATASOURCE_UID
from dashboards.boards.texts import LANGS, Lang
from telemetry.errors import VigilError

FOLDER_UID: Final = "vigil"
FOLDER_TITLE: Final = "Vigil"
TIMEOUT_S: Final = 10.0


class PushFailed(VigilError):
    """The server could not be reached, or refused."""


def push_boards(url: str, token: str | None, langs: Sequence[Lang] = LANGS) -> list[str]:
    """Pushes the boards of these languages. Returns the uids. Raises PushFailed.

    `token` is a service account's; None leaves it to the credentials in the URL.
    """
    api = GrafanaApi.from_url(url, credential=token, timeout=TIMEOUT_S)
    pushed = []
    try:
        with closing(api.client.s):
            _ensure_folder(api)
            _check_datasource(api)
            for board in (board for lang in langs for board in build_boards(lang).values()):
                payload = json.loads(to_json(board))
                api.dashboard.update_dashboard({"dashboard": payload, "folderUid": FOLDER_UID, "overwrite": True})
                pushed.append(payload["uid"])
    except (GrafanaException, niquests.RequestException) as error:
        raise PushFailed(f"Grafana at {_without_login(url)}: {error}") from error
    return pushed


def _ensure_folder(api: GrafanaApi) -> None:
    try:
        api.folder.get_folder(FOLDER_UID)
    except GrafanaClientError as error:
        if error.status_code != 404:
            raise
        api.folder.create_folder(FOLDER_TITLE, uid=FOLDER_UID)


def _check_datasource(api: GrafanaApi) -> None:
    """Boards without their data source come up blank, so its absence is said before they are pushed."""
    try:
        api.datasource.get_datasource_by_uid(DATASOURCE_UID)
    except GrafanaClientError as error:
        if error.status_code != 404:
            raise
        raise PushFailed(
            f"Grafana: expected a PostgreSQL data source with uid {DATASOURCE_UID} that points at Vigil's store, "
            "found none: make it first (docs/boards.md)"
        ) from error


def _without_login(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
