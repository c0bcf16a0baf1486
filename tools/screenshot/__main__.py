"""Takes pictures of all pages of the demo in headless Chromium, small ones, into docs/_static.

Starts a demo of its own, lets it run for some minutes so that its charts have something to show, and acts as
an operator would. With `--url` it visits one that runs already. Writes `overview-wide-light.png` and so on:
every page wide and light, the main ones also dark and on a phone. Stops with the name of the first page that
it cannot picture. `pictures.json` beside them keeps from which templates and styles each was made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from flask_opsjobs.testing.valkey import free_port
from tests.support.browser import chromium
from tests.support.processes import Child
from tools.screenshot import moving
from tools.screenshot.made_from import list_pictures, record
from tools.screenshot.pages import SHOTS, Shot, require_all_pictured, resume, wait_for_age

WIDTHS = {"wide": 1440, "phone": 360}
THEMES = ("light", "dark")
# Sharp enough for a phone's page, and half as large as with two.
PHONE_SCALE = 1.5
COLOURS = 64
MOST_BYTES = 2_700_000
PICTURES = Path("docs/_static")


@contextmanager
def demo() -> Iterator[str]:
    """The root of a demo that ends with the block."""
    with tempfile.TemporaryDirectory(prefix="shot-") as folder:
        port = free_port()
        options = ["--data-dir", f"{folder}/demo", "--port", str(port)]
        command = [sys.executable, "-m", "tools.demo", *options]
        child = Child(command, Path(folder) / "log", {})
        try:
            child.wait_for("sign in with", timeout=300)
            yield f"http://127.0.0.1:{port}"
        finally:
            child.terminate(timeout=60)


@contextmanager
def signed_in(browser: Any, root: str, who: str, width: str, theme: str) -> Iterator[Any]:
    """A page of a browser of that width and theme, of somebody who has signed in as `name:password`."""
    name, _, password = who.partition(":")
    context = browser.new_context(
        viewport={"width": WIDTHS[width], "height": 900},
        color_scheme=theme,
        device_scale_factor=PHONE_SCALE if width == "phone" else 1,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{root}/sign-in")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", password)
    page.press("input[name=password]", "Enter")
    page.wait_for_load_state("networkidle")
    yield page
    context.close()


def take(page: Any, url: str, shot: Shot, path: Path) -> None:
    """Go there and write the picture."""
    try:
        shot.open(page, url)
        page.wait_for_load_state("networkidle")
        if shot.is_whole:
            # Else the header, which stays on the screen, would be drawn in the middle.
            page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=path, full_page=shot.is_whole)
    except Exception as error:
        raise SystemExit(f"no picture of {shot.name}: {error}") from error
    shrink(path)
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KB", flush=True)


def shrink(path: Path) -> None:
    """Keep so many colours: pages have few, and the repository is small."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(
            # Keeps also the rare colours, which are those that mean something;
            # then the frequent ones as they were.
            COLOURS,
            method=Image.Quantize.MAXCOVERAGE,
            kmeans=1,
            dither=Image.Dither.NONE,
        )
    few.save(path, optimize=True)


def take_all(browser: Any, root: str, asked: argparse.Namespace) -> None:
    """Each page wide and light, then the main ones as they are otherwise, and last the one that moves."""
    url = f"{root}/ops/jobs"
    taken, only = [], tuple(asked.only) or ("",)
    with signed_in(browser, root, asked.who, "wide", "light") as page:
        wait_for_age(page, url, asked.minutes)
    for width, theme in product(WIDTHS, THEMES):
        is_first = (width, theme) == ("wide", "light")
        with signed_in(browser, root, asked.who, width, theme) as page:
            for shot in SHOTS:
                name = f"{shot.name}-{width}-{theme}.png"
                if (is_first or shot.is_main) and name.startswith(only):
                    take(page, url, shot, asked.folder / name)
                    taken.append(name)
            if (width, theme) == ("phone", "dark"):
                resume(page, url)
    if moving.NAME.startswith(only):
        with signed_in(browser, root, asked.who, "wide", "light") as page:
            moving.take_moving(page, url, asked.folder / moving.NAME)
        taken.append(moving.NAME)
    record(asked.folder, taken)


def drop_unused() -> None:
    """Remove the pictures of the documentation that none of its pages shows: they were to be looked at."""
    pages = "".join(path.read_text() for path in (Path("README.md"), *Path("docs").glob("*.md")))
    for path in list_pictures(PICTURES):
        if path.name not in pages:
            path.unlink()
    record(PICTURES, ())


def main() -> None:
    """Take them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="the root of a demo that runs already")
    parser.add_argument("--minutes", type=int, default=8, help="how old its first job shall be")
    parser.add_argument("--folder", type=Path, default=PICTURES)
    parser.add_argument(
        "--only", nargs="*", default=(), help="those whose names begin so; else all"
    )
    parser.add_argument("--who", default="ops-demo:operate", metavar="NAME:PASSWORD")
    asked = parser.parse_args()
    names = [
        f"{shot.name}-{width}-{theme}.png" for shot, width, theme in product(SHOTS, WIDTHS, THEMES)
    ]
    for begin in asked.only:
        if not any(name.startswith(begin) for name in (*names, moving.NAME)):
            parser.error(f"no picture has a name that begins with {begin!r}")
    require_all_pictured()
    asked.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), chromium_sandbox=False, args=["--disable-dev-shm-usage"]
        )
        if asked.url:
            take_all(browser, asked.url, asked)
        else:
            with demo() as root:
                take_all(browser, root, asked)
        browser.close()
    if asked.folder == PICTURES:
        drop_unused()
    total = sum(path.stat().st_size for path in asked.folder.glob("*.png"))
    if total > MOST_BYTES:
        raise SystemExit(f"{total / 1e6:.1f} MB of pictures are more than {MOST_BYTES / 1e6} MB")


if __name__ == "__main__":
    main()
