"""The machine's Chromium, for tests marked `browser`, and what a page has that bars somebody from it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT

from tests.support.waiting import wait_until

# What axe finds besides, such as what passes, stays in the browser.
_VIOLATIONS = "async (options) => (await axe.run(options)).violations"
# The rules of axe whose answer depends on colours.
_OF_COLOURS = ("color-contrast", "link-in-text-block")
# Those whose answer depends on the size of the window.
_OF_PLACES = ("target-size", "scrollable-region-focusable")
# A window of 1280 pixels at a zoom of 200 %.
_ZOOMED = {"width": 640, "height": 400, "deviceScaleFactor": 2, "mobile": False}
# Texts that run out of what shows them, without a scroll bar, an ellipsis or a title.
_CUT_OFF = """[...document.querySelectorAll("main *, header *")].filter((one) => {
    const style = getComputedStyle(one);
    const isCut = one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1;
    return isCut && ["hidden", "clip"].includes(style.overflowX) && style.textOverflow === "clip"
        && one.textContent.trim() && !one.title;
}).map((one) => one.textContent.trim().slice(0, 80))"""
# The first is Chromium without its windows, which takes a third less of a processor.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


@cache
def chromium() -> str:
    """Where Chromium lies. Without one the test skips with the reason; in CI it fails instead."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is not None:
        return found
    reason = f"no browser: none of {', '.join(_NAMES)} is on PATH (apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def launched() -> Iterator[Any]:
    """Chromium without a window. While it runs, so does an event loop,
    under which no test may call `asyncio.run`.
    """
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, who runs CI.
        browser = playwright.chromium.launch(
            executable_path=path, chromium_sandbox=False, args=["--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


def wait_for_script(page: Any, condition: str, timeout: float = 30) -> None:
    """Wait until a condition in JavaScript is true.

    The policy for scripts lets Playwright's own wait evaluate it only once.
    """
    wait_until(lambda: page.evaluate(condition), timeout, what=condition)


def barriers(page: Any) -> list[str]:
    """What axe finds in the light, and in the dark, where only colours differ; the page is then dark."""
    return _barriers(page, "light") + _barriers(page, "dark", runOnly=_OF_COLOURS)


def _barriers(page: Any, theme: str, **options: Any) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    return [
        f"{theme}: {violation['id']} {node['target']} {node['failureSummary']}"
        for violation in page.evaluate(_VIOLATIONS, {"resultTypes": ["violations"], **options})
        for node in violation["nodes"]
    ]


def faults(page: Any) -> list[str]:
    """What is wrong with the page on a desk in the light, on a laptop, on that at a zoom of 200 %, and on a
    phone in the dark.

    That is what axe finds, which takes a second each time, and whether it scrolls sideways.
    """
    found = []
    for width, theme in ((1440, "light"), (1280, None), (360, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        said = _barriers(page, theme) if theme else []
        found += [f"{page.url}, {width}: {each}" for each in said]
        if is_sideways(page):
            found.append(f"{page.url}, {width}: scrolls sideways")
    return found + _faults_of_zoom(page)


def _faults_of_zoom(page: Any) -> list[str]:
    """Whether the page scrolls sideways, cuts off a text or has a small target at 200 %, in the dark."""
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setDeviceMetricsOverride", _ZOOMED)
    found = [f"cuts off {text!r}" for text in page.evaluate(_CUT_OFF)]
    found += ["scrolls sideways"] if is_sideways(page) else []
    found += _barriers(page, "dark", runOnly=_OF_PLACES)
    session.detach()
    return [f"{page.url}, at 200 %: {each}" for each in found]


def is_sideways(page: Any) -> bool:
    """Whether the page is wider than its window, so that it scrolls sideways."""
    root = "document.documentElement"
    return bool(page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))
