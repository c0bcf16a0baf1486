"""Takes the moving picture of README: a job that failed, why, its retry with a reason, and the audit of it.

Each frame is a screen of the demo above a line that says what is seen.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tools.screenshot.pages import RETRY, Shot, await_row, carry_out, go, press

NAME = "repair-wide-light.gif"
# A little wider than README shows it: its letters can be read.
SCREEN = {"width": 1100, "height": 680}
SECONDS, LINE_HEIGHT, MARGIN, LETTERS, COLOURS = 4, 56, 24, 24, 96
INK, PAPER = "#ffffff", "#1b2433"
MOST_BYTES = 1_500_000
FAILED = "/jobs?state=failed&task=deliver_webhook&error=503"
FIRST = "table.jobs tbody th a"


def _failed(page: Any, url: str) -> None:
    await_row(page, url + FAILED, FIRST)


def _why(page: Any, _url: str) -> None:
    with page.expect_navigation():
        page.click(FIRST)


def _retry(page: Any, url: str) -> None:
    """The server that was down answers again: the shop's front page has a button for it."""
    job = page.url
    go(page, url.removesuffix("/ops/jobs"))
    with page.expect_navigation():
        page.get_by_role("button", name="Let it answer again").click()
    go(page, job)
    press(page, "Retry…")
    page.fill("dialog[open] textarea[name=reason]", RETRY)


def _retried(page: Any, _url: str) -> None:
    carry_out(page, RETRY)
    page.wait_for_selector(".chip.big[data-is=finished]")


def _audit(page: Any, _url: str) -> None:
    """The row to which the receipt leads."""
    with page.expect_navigation():
        page.click("#toast .say a")


FRAMES = (
    (Shot("failed", "jobs", _failed), "1  Webhooks failed: the server of the receiver was down."),
    (Shot("why", "job", _why), "2  Why: the error, where it was raised, and each attempt."),
    (Shot("retry", "preview", _retry), "3  Retry: what will change, and the reason for it."),
    (Shot("retried", "job", _retried), "4  It ran again, and finished."),
    (Shot("audited", "audit_event", _audit), "5  The audit keeps who did it, and why."),
)


def take_moving(page: Any, url: str, path: Path) -> None:
    """Go through the frames in their order, in a browser that has signed in, and write the picture."""
    page.set_viewport_size(SCREEN)
    frames = []
    for shot, line in FRAMES:
        shot.open(page, url)
        page.wait_for_load_state("networkidle")
        frames.append(_captioned(page.screenshot(), line))
    first, *others = frames
    first.save(path, save_all=True, append_images=others, duration=SECONDS * 1000, loop=0)
    size = path.stat().st_size
    print(f"{path.name}: {size / 1024:.0f} KB", flush=True)
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6} MB")


def _captioned(screen: bytes, line: str) -> Image.Image:
    """A screen above a line of text, in few colours: those of the texts are among them."""
    with Image.open(BytesIO(screen)) as shown:
        width, height = shown.size
        frame = Image.new("RGB", (width, height + LINE_HEIGHT), PAPER)
        frame.paste(shown)
    font = ImageFont.load_default(LETTERS)
    at = (MARGIN, height + LINE_HEIGHT / 2)
    ImageDraw.Draw(frame).text(at, line, fill=INK, font=font, anchor="lm")
    return frame.quantize(
        COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
    )
