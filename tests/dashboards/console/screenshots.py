"""Pictures of the console on the live demonstration plant: `python -m tests.dashboards.console.screenshots`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.fixtures.browser import ARGUMENTS, chromium
from tests.fixtures.ports import free_port
from tests.fixtures.up import UpProcess

OUT = Path(__file__).parents[3] / "docs" / "images"
RUN_S = 75.0
"""Long enough for the first faults of the plant, with something in the trends."""
SHOTS = (
    ("console", "/#/", 1360, 900, "light", "en"),
    ("console-zh", "/#/", 1360, 900, "light", "zh"),
    ("console-phone", "/#/alarms", 390, 844, "dark", "en"),
    ("console-unit", "/#/unit/boiler-01", 1360, 1400, "light", "en"),
)


def main() -> None:
    """Runs the line for a while, then takes all pictures."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vigil-shot-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        up = UpProcess(Path(folder) / "state", free_port())
        try:
            up.wait_until(lambda: len(up.items("alarms?state=active")) >= 3, 90)
            time.sleep(RUN_S)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
                for name, path, width, height, scheme, lang in SHOTS:
                    context = browser.new_context(
                        viewport={"width": width, "height": height},
                        color_scheme="dark" if scheme == "dark" else "light",
                    )
                    context.add_init_script(f"localStorage.setItem('vigil.lang', '{lang}')")
                    page = context.new_page()
                    page.goto(up.url + path)
                    page.wait_for_timeout(2_500)
                    page.screenshot(path=OUT / f"{name}.png")
                    context.close()
                browser.close()
        finally:
            up.stop()


if __name__ == "__main__":
    main()
