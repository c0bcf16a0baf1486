"""The pages in a real browser: no error on the console, no barrier, alive, and whole without JavaScript."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.support import host as site
from tests.support.browser import barriers, faults, wait_for_script
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGES = {
    "overview": "",
    "jobs": "/jobs",
    "jobs of a state": "/jobs?state=failed",
    "no job fits": "/jobs?queue=nowhere",
    "cannot be read": "/jobs?state=nonsense",
    "finished": "/jobs/{finished}",
    "failed": "/jobs/{failed}",
    "killed": "/jobs/{killed}",
    "started": "/jobs/{started}",
    "scheduled": "/jobs/{scheduled}",
    "waiting": "/jobs/{nobody listens}",
    "raw": "/jobs/{failed}/raw",
    "edited": "/edit/jobs/{nobody listens}",
    "not edited": "/edit/jobs/{failed}",
    "searched": "/jobs?q=error:purpose%20created:<1d",
    "a word that nobody bears": "/jobs?q=nobody",
    "a mistake in a search": "/jobs?q=state:failed%20OR",
    "no such job": "/jobs/987654321",
    "tasks": "/tasks",
    "a task": "/tasks/fail",
    "queues": "/queues",
    "a queue": "/queues/reports",
    "why jobs wait": "/jobs/why",
    "workflows": "/workflows",
    "signals": "/signals",
    "a workflow": "/workflows/{run}",
    "a wait": "/workflows/{run}?step={wait}",
    "a workflow compared": "/workflows/{run}/compare?with={run}",
    "batches": "/batches",
    "a batch": "/batches/{batch}",
    "no such batch": "/batches/987654321",
    "cron": "/cron",
    "a cron entry": "/cron/yearly",
    "a new cron entry": "/new/cron?expression=30+3+*+*+*",
    "a wrong expression": "/new/cron?expression=61+3+*+*+*",
    "limiters": "/limiters",
    "a limiter": "/limiters/one",
    "what it would do": "/limiters/one/simulate?live=yes&concurrency=4",
    "what it cannot do": "/limiters/one/simulate?count=0&rate=x&burst=2",
    "workers": "/workers",
    "doctor": "/doctor",
    "audit": "/audit",
    "help": "/help",
}

# What they show stands on other pages above too, so what bars people from them is looked for by --variants.
ALIKE = {
    "jobs of a state",
    "killed",
    "scheduled",
    "searched",
    "a word that nobody bears",
    "no such batch",
    "a wrong expression",
}


@pytest.fixture
def noise(page: Any) -> list[str]:
    """What the page complained of: console messages, exceptions, failed requests.

    Not of those that the browser broke off because another page was asked for.
    """
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "requestfailed",
        lambda request: (
            request.failure == "net::ERR_ABORTED" or said.append(f"failed: {request.url}")
        ),
    )
    return said


def _open(page: Any, running: Site, path: str) -> None:
    page.goto("/ops/jobs" + path.format(**running.jobs))


def _refresh_only_by_key(page: Any, live_url: str) -> None:
    """Let its pages not refresh by themselves."""
    off = {"name": "opsjobs_refresh", "value": "off", "url": f"{live_url}/ops/jobs"}
    page.context.add_cookies([off])


# On a laptop none of their columns is cut off.
TABLES = {
    "overview",
    "jobs",
    "finished",
    "killed",
    "queues",
    "workers",
    "workflows",
    "a workflow",
    "batches",
    "cron",
    "limiters",
}
_CUT_OFF = """[...document.querySelectorAll("#part > .panel, .split > .stack > .panel, .tabs ul")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"""


@pytest.mark.slow(100)
def test_no_page_has_a_barrier_or_complains_or_is_cut_off_at_any_size(
    page: Any,
    live_url: str,
    noise: list[str],
    running: Site,
    pytestconfig: pytest.Config,
) -> None:
    _refresh_only_by_key(page, live_url)
    found = []
    for name, path in PAGES.items():
        _open(page, running, path)
        if pytestconfig.getoption("variants") or name not in ALIKE:
            found += faults(page)
        for width in (1280, 1440) if name in TABLES else ():
            page.set_viewport_size({"width": width, "height": 800})
            found += [f"{name}, {width}: {cut} is cut off" for cut in page.evaluate(_CUT_OFF)]
    assert PAGES.keys() >= TABLES | ALIKE
    assert not found, "\n".join(found)
    # A page that cannot be shown answers 4xx, which Chromium notes by itself.
    assert [line for line in noise if "status of 4" not in line] == []


def test_why_jobs_wait_is_fetched_by_its_link_or_once_the_page_is_there(
    page: Any, noise: list[str], running: Site
) -> None:
    for path in ("/jobs?queue=reports", "/queues/reports"):
        _open(page, running, path)
        if path.startswith("/jobs"):
            # By itself it would move the list below a pointer.
            page.click("#why-waiting a")
        page.wait_for_selector("#waiting-jobs")
        assert "no live worker listens to queue reports" in page.inner_text("#why-waiting")
    page.click("#waiting-jobs td.n a")
    page.wait_for_selector(f"table.jobs >> text='{running.jobs['nobody listens']}'")
    assert noise == []


def test_why_the_jobs_of_a_task_wait_stays_in_its_place_when_the_page_refreshes(
    page: Any, live_url: str, noise: list[str], running: Site
) -> None:
    _refresh_only_by_key(page, live_url)
    _open(page, running, "/tasks/add")
    page.wait_for_selector("#live .split #waiting-jobs")
    page.evaluate("document.getElementById('why-waiting').mark = true")
    page.evaluate("document.getElementById('part').mark = true")
    # Else the answer may be that nothing changed.
    running.enqueue("one more", site.add.options(delay=3600), a=1, b=1)
    with page.expect_response("**/live/tasks/add") as found:
        page.keyboard.press("r")
    wait_for_script(page, "!document.getElementById('part').mark")
    assert page.evaluate("document.querySelector('#live #why-waiting').mark")
    assert page.inner_text("#waiting-jobs h2") == "Why they wait"
    # The tag of the region is that of its own answer.
    assert page.get_attribute("#live", "data-etag") == found.value.headers["etag"]
    assert noise == []


def test_a_running_job_is_followed_to_its_end(
    page: Any, noise: list[str], running: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    running.enqueue("followed", site.progress_then_hold, gate=str(gate))
    _open(page, running, "/jobs/{followed}")
    # A worker tells with its next heartbeat how far its jobs are.
    page.wait_for_selector("#part :text('3 of 10 third')", timeout=20_000)
    gate.touch()
    page.wait_for_selector(".chip.big[data-is=finished]", timeout=20_000)
    assert noise == []


def test_the_journey_from_what_is_wrong_to_the_error(page: Any, running: Site) -> None:
    _open(page, running, "")
    assert "no live worker" in page.inner_text("main")
    page.click("nav.side >> text=Jobs")
    page.click("nav.tabs >> text=failed")
    page.wait_for_url("**/jobs?state=failed")
    page.click(f"table.jobs >> text='{running.jobs['failed']}'")
    page.wait_for_load_state()
    assert "the vendor's API timed out" in page.inner_text(".err h2")
    assert "host.py" in page.inner_text(".frames")
    page.fill("#jump", f"opsjobs-{running.jobs['finished']}-1")
    page.press("#jump", "Enter")
    page.wait_for_url(f"**/jobs/{running.jobs['finished']}")
    assert "5" in page.inner_text("[aria-labelledby=output] pre")


def test_a_killed_attempt_says_what_is_known(page: Any, running: Site) -> None:
    _open(page, running, "/jobs/{killed}")
    assert "killed" in page.inner_text("[aria-labelledby=attempts] tbody")
    assert "about to die" in page.inner_text("[aria-labelledby=log]")


def test_search_finds_and_a_condition_is_taken_away_again(page: Any, running: Site) -> None:
    _open(page, running, "/jobs")
    page.fill("#q", "queue:reports created:<2h")
    page.press("#q", "Enter")
    page.wait_for_url("**/jobs?q=*")
    assert page.locator("table.jobs tbody tr").count() == 1
    page.click(".hints a >> text=queue:reports")
    page.wait_for_url("**/jobs?created=*")
    assert page.locator("table.jobs tbody tr").count() > 1
    assert page.input_value("#q") == "created:<2h"


def test_suggestions_are_chosen_by_keys_or_a_click(
    page: Any, noise: list[str], running: Site
) -> None:
    _open(page, running, "/jobs")
    page.focus("#q")
    page.keyboard.type("-queu")
    page.wait_for_selector("#suggestions [role=option]")
    assert page.get_attribute("#q", "aria-expanded") == "true"
    page.keyboard.press("Escape")
    assert page.get_attribute("#q", "aria-expanded") == "false"
    page.keyboard.press("ArrowDown")
    active = page.get_attribute("#q", "aria-activedescendant")
    assert page.inner_text(f"#{active}[aria-selected=true]") == "-queue:"
    assert barriers(page) == []
    page.keyboard.press("Enter")
    page.click("#suggestions [data-fill='-queue:reports']")
    assert page.input_value("#q") == "-queue:reports "
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs?q=-queue*")
    assert page.input_value("#q") == "-queue:reports"
    assert noise == []
    # Times are read in the zone in which they are shown.
    assert page.is_disabled("[data-in-zone] >> nth=0")
    page.select_option("#zone", "local")
    here = page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    assert page.input_value("[data-in-zone] >> nth=0") == here


def test_a_chosen_theme_and_zone_hold_at_once_and_after_reload(
    page: Any, noise: list[str], running: Site
) -> None:
    page.emulate_media(color_scheme="light")
    _open(page, running, "/jobs/{finished}")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.select_option("#theme", "dark")
    page.wait_for_selector("html[data-theme=dark]")
    assert page.evaluate(background) != light
    page.select_option("#zone", "local")
    page.wait_for_selector("html[data-zone=local]")
    page.wait_for_selector("#fresh-zone:text-is('local')")
    assert "local time" in page.get_attribute("[aria-labelledby=facts] time", "title")
    assert page.inner_text("#fresh-zone") == "local"
    assert noise == []


def test_nothing_refreshes_under_a_person_s_hands(page: Any, running: Site) -> None:
    asked: list[str] = []
    # The browser asks for the icon when it likes.
    page.on("request", lambda request: "/static/" in request.url or asked.append(request.url))
    page.clock.install()
    _open(page, running, "/jobs")
    asked.clear()
    page.focus("table.jobs tbody a")
    page.clock.run_for(30_000)
    assert asked == []
    assert "paused while you work in it" in page.inner_text("#fresh")
    page.focus("#q")
    page.evaluate("getSelection().selectAllChildren(document.querySelector('table.jobs'))")
    page.clock.run_for(30_000)
    assert asked == []
    assert "paused while you select" in page.inner_text("#fresh")
    page.evaluate("getSelection().removeAllRanges()")
    with page.expect_response("**/jobs/live"):
        page.clock.run_for(6_000)


def test_the_head_says_when_the_facts_were_read(page: Any, running: Site) -> None:
    """A poll that looks for changes only does not move the time, nor one whose answer is not shown."""
    answers = {"status": 304, "headers": {"ETag": '"same"'}}
    page.clock.install()
    _open(page, running, "/jobs")
    page.route("**/jobs/live", lambda route: route.fulfill(**answers))
    head = page.locator("#fresh > time")
    # Ours have heard of it by then.
    page.evaluate("""() => {
        window.answers = 0;
        document.addEventListener("htmx:afterRequest", () => { window.answers += 1; });
    }""")

    def poll() -> str:
        number = page.evaluate("window.answers") + 1
        page.clock.run_for(6_000)
        wait_for_script(page, f"window.answers >= {number}", 10)
        page.clock.run_for(100)
        return str(head.get_attribute("datetime"))

    looked = poll()
    assert "since" not in page.inner_text("#fresh-why")
    assert poll() == looked
    assert "no change in Postgres since" in page.inner_text("#fresh")
    answers["headers"] = {"ETag": '"made anew"'}
    made = poll()
    assert made > looked
    assert "since" not in page.inner_text("#fresh-why")
    assert poll() == made
    held: list[Any] = []
    page.route("**/jobs/live", lambda route: held.append(route))
    with page.expect_request("**/jobs/live"):
        page.clock.run_for(6_000)
    page.focus("table.jobs tbody a")
    held[0].fulfill(status=200, headers={"ETag": '"not shown"'}, body='<div id="part"></div>')
    wait_for_script(page, "window.answers >= 5", 10)
    page.clock.run_for(100)
    assert head.get_attribute("datetime") == made


def test_a_refresh_that_is_asked_for_waits_for_a_poll_on_its_way(page: Any, running: Site) -> None:
    """It still replaces the region where a person works, which the poll before it must not."""
    held: list[Any] = []

    def hold_the_first(route: Any) -> None:
        if not held:
            held.append(route)
            return
        # Without an ETag the answer is a whole fragment.
        headers = route.request.headers
        route.continue_(
            headers={name: headers[name] for name in headers if name != "if-none-match"}
        )

    page.clock.install()
    _open(page, running, "/jobs")
    page.route("**/jobs/live", hold_the_first)
    with page.expect_request("**/jobs/live"):
        page.clock.run_for(6_000)
    page.focus("table.jobs tbody a")
    page.keyboard.press("r")
    page.evaluate("document.querySelector('table.jobs').id = 'before'")
    held[0].continue_()
    page.wait_for_selector("table.jobs:not(#before)")
    assert page.evaluate("document.activeElement.matches('table.jobs tbody a')")


def test_a_sign_in_page_is_never_swapped_in(page: Any, running: Site) -> None:
    page.clock.install()
    _open(page, running, "/jobs")
    page.route("**/jobs/live", lambda route: route.fulfill(status=200, body="<h1>Sign in</h1>"))
    with page.expect_response("**/jobs/live"):
        page.clock.run_for(6_000)
    page.wait_for_selector("#fresh:has-text('not refreshed')")
    assert page.locator("table.jobs tbody tr").count() > 3
    page.unroute("**/jobs/live")
    page.route("**/jobs/live", lambda route: route.fulfill(status=403, body="no"))
    with page.expect_response("**/jobs/live"):
        page.clock.run_for(6_000)
    page.wait_for_selector("#fresh:has-text('the server answered 403')")
    assert page.locator("table.jobs tbody tr").count() > 3


def test_an_error_has_room_beside_the_other_columns(page: Any, running: Site) -> None:
    _open(page, running, "/jobs/{failed}")
    for width in (1440, 1280, 1160, 800, 360):
        page.set_viewport_size({"width": width, "height": 700})
        cell = page.locator("[aria-labelledby=attempts] tbody .wide").first
        assert cell.bounding_box()["width"] >= 180, width


def test_a_job_is_handed_over_as_a_command_and_as_a_ticket(page: Any, running: Site) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _open(page, running, "/jobs/{failed}")
    page.click("#fresh summary")
    page.click("text=Copy as command")
    page.wait_for_selector("#fresh button:has-text('Copied')")
    job = running.jobs["failed"]
    assert page.evaluate("navigator.clipboard.readText()") == f"flask opsjobs why {job}"
    page.click("text=Copy for a ticket")
    page.wait_for_selector("[data-copy-from]:has-text('Copied')")
    ticket = page.evaluate("navigator.clipboard.readText()")
    assert ticket.startswith(f"{page.url}\n\n# ")
    assert "the vendor's API timed out" in ticket
    page.route("**/export/**", lambda route: route.fulfill(status=403, body="<!doctype html>no"))
    page.click("[data-copy-from]")
    page.wait_for_selector("[data-copy-from]:has-text('Not copied')")
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_tab_follows_what_each_poll_says(page: Any, running: Site) -> None:
    page.clock.install()
    _open(page, running, "/jobs")
    where = page.evaluate("document.documentElement.dataset.title")
    says = page.get_attribute("#icon", "data-says")
    assert page.title() == " · ".join(filter(None, [says, where]))
    page.route("**/jobs/live", lambda route: route.fulfill(status=500, body="no"))
    page.clock.run_for(6_000)
    wait_until(lambda: page.title().startswith("○ not refreshed"), 10)
    assert "icon-away" in page.get_attribute("#icon", "href")
    page.unroute("**/jobs/live")
    page.clock.run_for(6_000)
    wait_until(lambda: not page.title().startswith("○"), 10)
    # What this answer says: an incident may have been opened meanwhile.
    assert page.get_attribute("#icon", "href") == page.get_attribute("#icon", "data-icon")
    icon = '<link id="icon" rel="icon" href="/x.svg" data-icon="/x.svg" data-says="● 2 critical"'
    answer = f'{icon} hx-swap-oob="true"><div id="part">jobs</div>'
    page.route(
        "**/jobs/live", lambda route: route.fulfill(status=200, headers={"ETag": "x"}, body=answer)
    )
    page.clock.run_for(6_000)
    wait_until(lambda: page.title().startswith("● 2 critical · Jobs"), 10)
    assert page.get_attribute("#icon", "href") == "/x.svg"
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert re.match(r"\d\d:\d\d · ● 2 critical · Jobs", page.title())


def test_an_open_page_leaves_for_the_sign_in_unless_something_is_typed(
    page: Any, running: Site
) -> None:
    page.clock.install()
    _open(page, running, "/jobs")
    # A page of ours stands for the sign-in of a host.
    led = {"HX-Redirect": "/ops/jobs/help"}
    answer = '<h1 id="dialog-page-title">Not signed in</h1>'
    page.route("**/jobs/live", lambda route: route.fulfill(status=403, headers=led, body=answer))
    page.fill("#q", "customer 42")
    page.evaluate("document.activeElement.blur()")
    with page.expect_response("**/jobs/live"):
        page.clock.run_for(6_000)
    page.wait_for_selector("#fresh:has-text('not refreshed: Not signed in')")
    assert page.input_value("#q") == "customer 42"
    page.fill("#q", "")
    page.evaluate("document.activeElement.blur()")
    page.clock.run_for(6_000)
    page.wait_for_url("**/help")


def test_the_same_without_javascript(page: Any, live_url: str, running: Site) -> None:
    browser = page.context.browser
    context = browser.new_context(base_url=live_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/ops/jobs")
    page.click("nav.side >> text=Jobs")
    page.fill("#q", "state:failed")
    page.click("button >> text=Search")
    page.click(f"table.jobs >> text='{running.jobs['failed']}'")
    page.wait_for_load_state()
    assert "the vendor's API timed out" in page.inner_text(".err h2")
    assert page.locator("button[data-copy]:visible").count() == 0
    page.select_option("#theme", "dark")
    page.click(".prefs >> text=Set")
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.url.endswith(f"/jobs/{running.jobs['failed']}")
    context.close()


def test_a_limiter_is_tried_without_javascript(page: Any, live_url: str, running: Site) -> None:
    context = page.context.browser.new_context(base_url=live_url, java_script_enabled=False)
    page = context.new_page()
    page.goto("/ops/jobs/limiters/one")
    page.click("text=Simulate")
    page.fill("text=Jobs at once", "12")
    page.fill("text=Concurrency", "3")
    page.check("#s-live")
    page.click("button >> text=Simulate")
    assert "12 jobs arrive at once; no job waits now" in page.inner_text(
        "[aria-labelledby=outcome]"
    )
    assert "after 11.0 s" in page.inner_text("td[data-label='as declared'] >> nth=2")
    assert "after 3.0 s" in page.inner_text("td[data-label='as tried'] >> nth=2")
    assert page.input_value("#s-concurrency") == "3"
    context.close()


def test_the_menu_opens_on_a_phone(page: Any, running: Site) -> None:
    page.set_viewport_size({"width": 360, "height": 780})
    _open(page, running, "")
    assert not page.is_visible("nav.side")
    page.click("text=Menu")
    page.click("nav.side >> text=Jobs")
    page.wait_for_url("**/ops/jobs/jobs")
