"""The page *Your first app*, followed by somebody with an empty folder, the wheel and a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.newcomer.walk import Walk
from tests.support.browser import launched
from tests.support.guides import is_shown
from tests.support.sources import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.slow(60)]

PAGE = (ROOT / "docs/first-app.md").read_text()
MOST_SECONDS = 300


def pressed(word: str) -> str:
    """The selector of a button or link that the page names in bold."""
    assert f"**{word}**" in PAGE, word
    return f":is(button, a, summary):text('{word}') >> visible=true"


def reason(word: str) -> str:
    """A reason that the page gives as an example."""
    assert f"`{word}`" in " ".join(PAGE.split()), word
    return word


@pytest.fixture
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def test_a_newcomer_gets_where_the_page_says(
    walk: Walk, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    # What starts in the new environment is the app itself: `flask opsjobs up` and `flask run`.
    walk.is_warm = True
    walk.follows(PAGE, "Begin")
    assert [path.name for path in walk.folder.iterdir()] == ["app.py"]
    walk.follows(PAGE, "Install")
    assert walk.unnamed == set()
    page = browser.new_context(base_url=f"http://{walk.address}").new_page()
    page.set_default_timeout(30_000)
    name, password = re.search(r"sign in as `(.+?)` with the password `(.+?)`", PAGE).groups()
    page.goto("/ops/jobs/cron")
    page.click("main a[href^='/sign-in']")
    _sign_in(page, name, password)
    page.wait_for_url("**/ops/jobs/cron")
    for other_site in (
        "//example.org/",
        "/\\example.org/",
        "/\t/example.org/",
        "https://example.org/",
    ):
        page.goto(f"/sign-in?next={quote(other_site)}")
        _sign_in(page, name, password)
        page.wait_for_url(lambda url: "/sign-in" not in url)
        assert page.url.startswith(f"http://{walk.address}/"), other_site
    page.context.clear_cookies()
    page.goto("/")
    _sign_in(page, name, password)
    page.click(pressed("Send invoice 7"))
    page.wait_for_url("**/ops/jobs/jobs/*")
    page.wait_for_selector(".chip.big[data-is=failed]")
    assert "invoice-7.txt" in page.inner_text("main")

    walk.follows(PAGE, "Repair it, with a reason")
    because = [reason("The invoice is there now"), reason("The vendor is away tonight")]
    page.click(pressed("Retry…"))
    _give(page, because[0])
    page.wait_for_selector(".chip.big[data-is=finished]")

    page.click(f"nav.side >> {pressed('Cron')}")
    page.click("main a:text-is('nightly_sync')")
    page.click(f"main >> {pressed('Pause…')}")
    _give(page, because[1])
    page.click(f"main >> {pressed('Forensics')}")
    page.wait_for_url("**/forensics/**")
    said = page.inner_text("main")
    assert because[1] in said
    assert name in said
    page.click(f"nav.side >> {pressed('Audit')}")
    page.wait_for_url("**/audit")
    assert all(each in page.inner_text("main") for each in because)
    walk.follows(PAGE, "Find it again")
    code, said = walk.types("flask opsjobs doctor")
    assert code == 1
    assert is_shown("docs/doctor.md", "flask opsjobs doctor", said, is_exact=True), said

    walk.follows(PAGE, "Look at a plain RQ job")
    page.click(f"nav.side >> {pressed('RQ')}")
    page.wait_for_url("**/ops/jobs/rq**")
    assert "Inspection only" in page.inner_text("main")
    page.click("main tr:has-text('reports') [data-label=queued] a")
    page.click("main tbody th a")
    page.wait_for_url("**/view/job/*")
    assert "time.time" in page.inner_text("main")
    assert page.locator("main form[method=post]").count() == 0
    lasted = time.monotonic() - began
    with capsys.disabled():
        print(
            f"\na newcomer needs {lasted:.0f} s without what pip downloads, at most {MOST_SECONDS}"
        )
    assert lasted <= MOST_SECONDS


def _sign_in(page: Any, name: str, password: str) -> None:
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.click("button")


def _give(page: Any, why: str) -> None:
    """Write the reason of the open preview, and carry it out."""
    page.fill("#dialog-page #reason", why)
    page.click("#dialog-page .foot .btn.main")
    page.wait_for_selector("#toast .say")
