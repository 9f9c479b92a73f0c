"""What a person does with the console, in a real Chromium, on the real service and store."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from ingest.migrate import migrate
from telemetry.settings import Settings
from tests.dashboards.console.conftest import Alerting, RunningConsole, running_console
from tests.dashboards.console.seed import Seed, units, utc_now
from tests.fixtures.store import StoreServer, fresh_database

OpenPage = Callable[..., Page]
NETWORK_NOISE = re.compile(
    r"ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET|status of 503|status of 401"
)
TOUCH_PX = 40


@pytest.fixture
def console(plain_server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """A console of its own for each test: what one does, another does not see."""
    with fresh_database(plain_server.url) as url:
        with psycopg.connect(url) as connection:
            Seed(connection, now=utc_now()).fill(minutes=5)
        with running_console(url, tmp_path_factory.mktemp("browser")) as running:
            yield running


@pytest.fixture
def open_page(browser: Browser, console: RunningConsole) -> Iterator[OpenPage]:
    """Opens a page of the console; at the end, nothing may have been said on the page's console."""
    said: list[str] = []
    pages: list[Page] = []

    def opened(path: str = "/", *, wait: bool = True, **more: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | more))
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(console.url + path)
        if wait:
            expect(page.get_by_text("Live", exact=True)).to_be_visible()
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert [text for text in said if not NETWORK_NOISE.search(text)] == []


def test_a_person_sees_the_fleet_with_what_is_wrong_first(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("article.tile")).to_have_count(22)
    first = page.locator("article.tile").first
    expect(first).to_contain_text("Boiler 1")
    expect(first).to_contain_text("Critical")
    expect(first).to_contain_text("Outlet temperature dangerously high")
    expect(first).to_contain_text("七莘路 301 号锅炉房")
    expect(first.get_by_role("link", name="021-5555 0400")).to_have_attribute("href", "tel:02155550400")
    expect(page.locator('[data-unit="forklift-02"]')).to_contain_text("Offline")
    expect(page.get_by_role("link", name="Alarms")).to_contain_text("3")
    expect(page).to_have_title(re.compile(r"^\(3\)"))


def test_a_person_narrows_the_fleet_to_an_area_a_class_and_what_needs_somebody(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_label("Area").select_option("qibao")
    expect(page.locator("section.area")).to_have_count(1)
    expect(page.locator("article.tile")).to_have_count(8)
    page.get_by_label("Class").select_option("elevator")
    expect(page.locator("article.tile")).to_have_count(4)
    page.reload()
    expect(page.locator("article.tile")).to_have_count(4)
    page.get_by_label("Needs attention only").check()
    expect(page.locator("article.tile")).to_have_count(1)
    expect(page.locator("article.tile")).to_contain_text("Building 2, lift 7")


def test_a_person_finds_a_unit_by_its_address_and_is_told_when_nothing_matches(open_page: OpenPage) -> None:
    page = open_page()
    search = page.get_by_role("searchbox")
    search.fill("124 弄")
    expect(page.locator("article.tile")).to_have_count(1)
    search.fill("no such place")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("article.tile")).to_have_count(22)


def test_a_person_opens_a_unit_and_sees_where_it_is_whom_to_call_and_how_it_got_there(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("link", name="Open Building 4, lift 3").click()
    expect(page.get_by_role("heading", name="Building 4, lift 3")).to_be_visible()
    contacts = page.locator(".contacts")
    expect(contacts).to_contain_text("莘松路 124 弄 4 号")
    expect(contacts.get_by_role("link", name="Call Liftcare Maintenance 021-5555 0300")).to_be_visible()
    expect(contacts.get_by_role("link", name="Call Acme Property 021-5555 0100")).to_be_visible()
    expect(page.locator(".events")).to_contain_text("Stopped outside the unlocking zone")
    expect(page.locator('[data-point="door_status"]')).to_contain_text("Closing")
    expect(page.locator("figure.trend canvas").first).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Trend of .*, least .*, greatest")).first).to_be_visible()


def test_a_value_changes_on_the_page_when_it_changes_in_the_store(console: RunningConsole, open_page: OpenPage) -> None:
    page = open_page("/#/unit/boiler-02")
    outlet = page.locator('[data-point="outlet_temperature"]')
    expect(outlet).to_contain_text("°C")
    page.evaluate("window.sameDocument = true")
    with console.database() as seed:
        _set(seed, "boiler-02/outlet_temperature", 61.25)
        expect(outlet).to_contain_text("61.25 °C")
        _set(seed, "boiler-02/outlet_temperature", 61.25, quality=24)
        expect(outlet).to_contain_text("No communication")
        expect(outlet).not_to_contain_text("61.25")
        _set(seed, "boiler-02/outlet_temperature", 63.5, quality=68)
        expect(outlet).to_contain_text("63.5 °C")
        expect(outlet).to_contain_text("Stale")
    assert page.evaluate("window.sameDocument") is True


def test_a_new_alarm_appears_first_and_its_unit_too(console: RunningConsole, open_page: OpenPage) -> None:
    alarms, fleet = open_page("/#/alarms"), open_page()
    expect(alarms.locator("article.alarm")).to_have_count(4)
    with console.database() as seed:
        seed.alarm("new", "lift-0011", "", "comms-loss", priority="critical")
    expect(alarms.locator("article.alarm")).to_have_count(5)
    expect(alarms.locator("article.alarm").first).to_contain_text("The unit does not answer")
    expect(alarms.locator("article.alarm").first).to_contain_text("Building 6, lift 11")
    expect(alarms.locator("article.alarm").first).to_contain_text("021-5555 0300")
    expect(fleet.locator('[data-unit="lift-0011"]')).to_contain_text("Critical")
    expect(fleet.get_by_role("link", name="Alarms")).to_contain_text("4")


def test_a_person_acknowledges_an_alarm_with_name_and_note(
    console: RunningConsole, open_page: OpenPage, alerting: Alerting
) -> None:
    page, other = open_page("/#/alarms"), open_page("/#/alarms")
    alarm = page.locator('[data-alarm="a2"]')
    alarm.get_by_role("button", name="Acknowledge").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Acknowledge").click()
    expect(dialog).to_contain_text("Give your name")
    dialog.get_by_label("Your name").fill("王师傅")
    dialog.get_by_label("Note").fill("on the way")
    dialog.get_by_role("button", name="Acknowledge").click()
    expect(dialog).to_be_hidden()
    for seen in (alarm, other.locator('[data-alarm="a2"]')):
        expect(seen).to_contain_text("Acknowledged, still active")
        expect(seen).to_contain_text("王师傅")
        expect(seen).to_contain_text("on the way")
        expect(seen.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(page.get_by_role("link", name="Alarms")).to_contain_text("2")
    page.locator('[data-alarm="a1"]').get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_label("Your name")).to_have_value("王师傅")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_person_is_told_that_an_acknowledge_is_written_down_while_alerting_is_away(open_page: OpenPage) -> None:
    page = open_page("/#/unit/boiler-01")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_label("Your name").fill("Anna")
    page.get_by_role("dialog").get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("Written down; the alarm service has not handled it yet.")).to_be_visible()


def test_an_alarm_that_is_over_leaves_the_active_list(console: RunningConsole, open_page: OpenPage) -> None:
    page = open_page("/#/alarms")
    expect(page.locator('[data-alarm="a4"]')).to_be_visible()
    with console.database() as seed:
        seed.connection.execute("UPDATE alarm.alarm SET state = 'normal', cleared_at = now() WHERE alarm_id = 'a4'")
        seed.transition("a4", "clear", "acknowledged", "normal", actor="analyze")
    expect(page.locator('[data-alarm="a4"]')).to_have_count(0)
    page.get_by_role("button", name="All", exact=True).click()
    expect(page.locator('[data-alarm="a4"]')).to_contain_text("Back to normal")


def test_a_person_switches_the_language_and_it_is_remembered(open_page: OpenPage) -> None:
    page = open_page()
    page.get_by_role("button", name="Switch language: 中文").click()
    expect(page.get_by_text("实时", exact=True)).to_be_visible()
    expect(page.locator("article.tile").first).to_contain_text("出水严重超温")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    page.reload()
    expect(page.get_by_text("实时", exact=True)).to_be_visible()
    english = page.evaluate("document.body.innerText").replace("English", "").replace("Vigil", "")
    units = r"boiler|lift|forklift|°C|mm|km/h|m/s|kg|rpm|psi|[VdhmA%]\b"
    assert not re.findall(r"[A-Za-z]{3,}", re.sub(units, "", english))


@pytest.mark.parametrize("path", ["/", "/#/alarms", "/#/unit/boiler-01"])
def test_on_a_phone_nothing_scrolls_sideways_and_every_target_can_be_touched(open_page: OpenPage, path: str) -> None:
    page = open_page(path, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark")
    expect(page.locator("article").first).to_be_visible()
    if path.endswith("boiler-01"):
        expect(page.locator("figure.trend canvas").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.evaluate(
        """(least) => [...document.querySelectorAll('a, button, input, select, textarea, label')]
             .filter((e) => e.offsetParent && !e.closest('.visually-hidden') && !e.classList.contains('skip'))
             .filter((e) => !(e.matches('h3 a') || (e.type === 'checkbox')))
             .map((e) => [e.textContent || e.name, e.getBoundingClientRect()])
             .filter(([, box]) => box.height < least || box.width < least)
             .map(([text, box]) => [text, box.width, box.height])""",
        TOUCH_PX,
    )
    assert small == []


def test_all_can_be_done_by_keyboard(open_page: OpenPage, alerting: Alerting) -> None:
    page = open_page("/#/alarms")
    button = page.locator('[data-alarm="a3"]').get_by_role("button", name="Acknowledge")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Your name")).to_be_focused()
    page.keyboard.type("Bert")
    page.keyboard.press("Enter")
    expect(page.locator('[data-alarm="a3"]')).to_contain_text("Bert")


@pytest.fixture
def empty(plain_server: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningConsole]:
    """A console on a store that nothing has come to yet."""
    with fresh_database(plain_server.url) as url, running_console(url, tmp_path_factory.mktemp("empty")) as running:
        yield running


def test_an_empty_page_says_why(empty: RunningConsole, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(empty.url)
    expect(page.get_by_text("No equipment yet")).to_be_visible()
    expect(page.get_by_text("check that the edge and ingest are running")).to_be_visible()
    page.get_by_role("link", name="Alarms").click()
    expect(page.get_by_text("No active alarms")).to_be_visible()
    page.goto(f"{empty.url}/#/unit/nobody")
    expect(page.get_by_text("There is no such unit")).to_be_visible()
    with empty.database() as seed:
        seed.register()
        seed.unit(next(u for u in units() if u.id == "boiler-01"))
        seed.alarm("first", "boiler-01", "", "comms-loss", priority="high")
    page.goto(f"{empty.url}/#/alarms")
    expect(page.locator("article.alarm")).to_have_count(1)
    page.close()


def test_the_server_goes_away_and_comes_back_without_a_reload(console: RunningConsole, open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("article.tile")).to_have_count(22)
    page.evaluate("window.sameDocument = true")
    console.stop()
    expect(page.get_by_text("Reconnecting", exact=True)).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("connection to the server is lost")
    expect(page.locator("article.tile")).to_have_count(22)
    with console.database() as seed:
        seed.alarm("meanwhile", "lift-0001", "", "comms-loss", priority="critical")
    console.start()
    expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=15_000)
    expect(page.locator('[data-unit="lift-0001"]')).to_contain_text("The unit does not answer")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert page.evaluate("window.sameDocument") is True


def test_the_database_goes_away_and_comes_back(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> None:
    server = StoreServer("plain")
    try:
        server.start()
        with running_console(server.url, tmp_path_factory.mktemp("away"), wait=False) as running:
            page = browser.new_page()
            page.goto(running.url)
            expect(page.get_by_text("Database away", exact=True)).to_be_visible()
            expect(page.get_by_text("The database does not answer; waiting for it.")).to_be_visible()
            _migrate(server.url)
            expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=15_000)
            expect(page.get_by_text("No equipment yet")).to_be_visible()
            page.close()
    finally:
        server.remove()


def test_a_console_with_a_token_asks_for_it(
    console: RunningConsole, browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    token = "correct-horse-battery"
    with running_console(console.store_url, tmp_path_factory.mktemp("token"), console_token=token) as locked:
        page = browser.new_page()
        page.goto(locked.url)
        page.get_by_label("Access token").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("That is not the token")).to_be_visible()
        page.get_by_label("Access token").fill(token)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        expect(page.locator("article.tile")).to_have_count(22)
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_label("Access token")).to_be_visible()
        page.close()


def test_the_api_describes_itself_without_the_internet(console: RunningConsole, open_page: OpenPage) -> None:
    page = open_page("/api/docs", wait=False)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.get_by_text("/api/v1/alarms/{id}/acknowledge")).to_be_visible()
    page.get_by_text("/api/v1/alarms/{id}/acknowledge").click()
    expect(page.get_by_text("idempotency-key")).to_be_visible()
    assert asked
    assert all(url.startswith((console.url, "data:")) for url in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/#/alarms", "/#/unit/boiler-01"])
def test_every_text_has_a_contrast_of_four_and_a_half(open_page: OpenPage, scheme: str, path: str) -> None:
    page = open_page(path, color_scheme=scheme)
    expect(page.locator("article").first).to_be_visible()
    faint = page.evaluate(CONTRAST)
    assert faint == []


CONTRAST = """() => {
  const parse = (text) => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return { r, g, b, a }; };
  const channel = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = ({ r, g, b }) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; }
    return { r: 255, g: 255, b: 255 };
  };
  const faint = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.offsetParent || e.closest('.visually-hidden, .toast')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push([e.className, e.textContent.slice(0, 30), (a + 0.05) / (b + 0.05)]);
  }
  return faint;
}"""


def _migrate(url: str) -> None:
    """In a thread: playwright's loop runs in this one."""
    thread = threading.Thread(target=lambda: asyncio.run(migrate(Settings(store=url))))
    thread.start()
    thread.join()


def _set(seed: Seed, signal: str, value: float, *, quality: int = 192) -> None:
    row = seed.connection.execute("SELECT signal_id FROM store.signal WHERE name = %s", (signal,)).fetchone()
    assert row is not None
    seed.now = utc_now()
    seed.latest(row[0], value, quality=quality)
    seed.connection.execute("SELECT pg_notify('vigil_latest', '{}')")
