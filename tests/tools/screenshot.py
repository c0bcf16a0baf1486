"""Takes pictures of pages of a running host, wide and on a phone, light and dark, in headless Chromium.

Without arguments: of `make demo` on its usual port, into docs/_static. Writes `overview-wide-light.png`
and so on; a page is `name=path below the URL`. A path `/jobs/failed` stands for the newest job in a state.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from flask_opsjobs.jobs.lifecycle import STATES
from tests.support.browser import chromium

WIDTHS = {"wide": 1440, "phone": 360}
THEMES = ("light", "dark")
PAGES = ("overview=", "jobs=/jobs", "job=/jobs/failed")


def sign_in(page: Any, url: str, who: str) -> None:
    """Fill in the form of the host at `url` with `name:password`."""
    name, _, password = who.partition(":")
    page.goto(url)
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")


def visit(page: Any, url: str, path: str) -> None:
    """Open a page; the name of a state in place of a job's id is that state's newest job."""
    *_, last = path.rpartition("/")
    if last not in STATES:
        page.goto(url + path)
        return
    page.goto(f"{url}/jobs?state={last}")
    page.click("table.jobs tbody th a")
    page.wait_for_load_state("networkidle")


def take(browser: Any, asked: argparse.Namespace) -> None:
    """Write `<page>-<width>-<theme>.png` for each page, whole, at each width and in each theme."""
    for (width, pixels), theme in product(WIDTHS.items(), THEMES):
        context = browser.new_context(
            viewport={"width": pixels, "height": 900},
            color_scheme=theme,
            device_scale_factor=2 if width == "phone" else 1,
        )
        page = context.new_page()
        if asked.sign_in:
            sign_in(page, asked.sign_in, asked.who)
        for name, _, path in (page.partition("=") for page in asked.pages):
            visit(page, asked.url, path)
            page.screenshot(path=asked.folder / f"{name}-{width}-{theme}.png", full_page=True)
        context.close()


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", default=PAGES, metavar="name=path")
    parser.add_argument("--url", default="http://127.0.0.1:5000/ops/jobs")
    parser.add_argument("--folder", type=Path, default=Path("docs/_static"))
    parser.add_argument("--sign-in", default="http://127.0.0.1:5000/sign-in", metavar="URL")
    parser.add_argument("--who", default="ops-demo:operate", metavar="NAME:PASSWORD")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), chromium_sandbox=False, args=["--disable-dev-shm-usage"]
        )
        take(browser, asked)
        browser.close()


if __name__ == "__main__":
    main()
