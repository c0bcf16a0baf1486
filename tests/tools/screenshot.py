"""Takes pictures of pages of a running host, wide and on a phone, light and dark, in headless Chromium.

`python -m tests.tools.screenshots http://127.0.0.1:5000/ops/jobs docs/pictures overview= jobs=/jobs`
writes `overview-wide-light.png` and so on; a page is `name=path below the URL`. `--sign-in PATH?…` is
asked first, in the same browser, where the host wants one signed in.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.support.browser import chromium

WIDTHS = {"wide": 1440, "phone": 360}
THEMES = ("light", "dark")


def take(browser: Any, url: str, pages: dict[str, str], folder: Path, sign_in: str | None) -> None:
    """Write `<page>-<width>-<theme>.png` for each page, whole, at each width and in each theme."""
    for (width, pixels), theme in product(WIDTHS.items(), THEMES):
        context = browser.new_context(
            viewport={"width": pixels, "height": 900},
            color_scheme=theme,
            device_scale_factor=2 if width == "phone" else 1,
        )
        page = context.new_page()
        if sign_in:
            page.goto(sign_in)
        for name, path in pages.items():
            page.goto(url + path)
            page.screenshot(path=folder / f"{name}-{width}-{theme}.png", full_page=True)
        context.close()


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="where the pages are mounted, without a slash at the end")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pages", nargs="+", metavar="name=path")
    parser.add_argument("--sign-in", metavar="URL")
    asked = parser.parse_args()
    pages = dict(page.split("=", 1) for page in asked.pages)
    asked.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), chromium_sandbox=False, args=["--disable-dev-shm-usage"]
        )
        take(browser, asked.url, pages, asked.folder, asked.sign_in)
        browser.close()


if __name__ == "__main__":
    main()
