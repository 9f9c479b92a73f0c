"""The boards in a real Grafana, by VIGIL_TEST_GRAFANA_URL (login in the URL, a data source of uid vigil): pushed, and drawn
by a browser, every query as Grafana itself sends it. What people see there, people have to judge (docs/boards.md)."""

from __future__ import annotations

import os
import time
from urllib.parse import urlsplit

import pytest
from grafana_foundation_sdk.models.dashboard import RowPanel
from playwright.sync_api import Browser, Page, Response

from dashboards.boards.build import BOARDS, build_boards, panels_of
from dashboards.boards.parts import uid
from dashboards.boards.push import push_boards
from dashboards.boards.texts import LANGS, Lang
from tests.fixtures import parts

DRAWN_WITHIN_S = 60.0
ERRORS = ".panel-info-corner--error, [data-testid*='Panel status error'], [data-testid*='Alert error']"


@pytest.fixture(scope="module")
def grafana() -> str:
    """Its URL with the login, the boards pushed."""
    url = os.environ.get("VIGIL_TEST_GRAFANA_URL")
    if url is None:
        parts.missing(
            "Grafana",
            not_tried="the boards on a real server",
            how="give a server with a data source of uid vigil by VIGIL_TEST_GRAFANA_URL (login in the URL)",
            obtainable=False,
        )
    assert url is not None
    assert len(push_boards(url, None)) == len(BOARDS) * len(LANGS)
    return url


def logged_in(browser: Browser, url: str) -> tuple[Page, str]:
    """A page tall enough that no panel waits to be scrolled to, and the server's address without the login."""
    parts_of_url = urlsplit(url)
    address = f"{parts_of_url.scheme}://{parts_of_url.hostname}:{parts_of_url.port or 80}"
    context = browser.new_context(viewport={"width": 1440, "height": 5000}, timezone_id="Asia/Shanghai")
    login = {"user": parts_of_url.username or "", "password": parts_of_url.password or ""}
    answer = context.request.post(f"{address}/login", data=login)
    assert answer.ok, answer.status
    return context.new_page(), address


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", BOARDS)
def test_a_real_grafana_draws_every_panel_without_an_error(
    grafana: str, browser: Browser, name: str, lang: Lang
) -> None:
    page, address = logged_in(browser, grafana)
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer) if "/api/ds/query" in answer.url else None)
    page.goto(f"{address}/d/{uid(name, lang)}")
    titles = {panel.title or "" for panel in panels_of(build_boards(lang)[name]) if not isinstance(panel, RowPanel)}
    wanted = {title for title in titles if not title.startswith("${")}
    shown, deadline = "", time.monotonic() + DRAWN_WITHIN_S
    while not (wanted <= set(shown.splitlines()) and len(answers) >= len(titles)):
        assert time.monotonic() < deadline, f"not drawn: {wanted - set(shown.splitlines())}, {len(answers)} answers"
        page.wait_for_timeout(250)
        shown = page.inner_text("body")
    for answer in answers:
        assert answer.ok, answer.text()
    assert page.locator(ERRORS).count() == 0
    assert "${" not in shown, "a variable was not filled in"
    page.context.close()
