"""The journey of an operator at night, in a real browser on the example host: see, explain, act, audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs import endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.cron import transitions
from flask_opsjobs.cron.decide_slots import SlotDecider, SlotReport
from tests.host.conftest import PASSWORDS
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Seconds between two looks at a page.
LOOK = 1.0
REASON = "The invoice is there now, SHOP-2291"
OpenPage = Callable[..., Any]


@pytest.fixture(
    params=[
        pytest.param(True, id="with JavaScript"),
        pytest.param(False, id="without JavaScript", marks=pytest.mark.variants),
    ]
)
def javascript(request: pytest.FixtureRequest) -> bool:
    """Whether the browser runs scripts."""
    return bool(request.param)


@pytest.fixture
def noise() -> list[str]:
    """What any page complained of; a refusal by the content security policy is such a complaint."""
    return []


@pytest.fixture
def open_as(page: Any, live_url: str, noise: list[str]) -> Iterator[OpenPage]:
    """`open_as(name, javascript=True)`: a page of somebody who has signed in at the shop."""
    contexts = []

    def open_as(name: str, *, javascript: bool = True) -> Any:
        context = page.context.browser.new_context(
            base_url=live_url, java_script_enabled=javascript
        )
        context.set_default_timeout(15_000)
        contexts.append(context)
        opened = context.new_page()
        opened.on(
            "console", lambda said: "/ops/jobs" in said.location["url"] and noise.append(said.text)
        )
        opened.on("pageerror", lambda error: noise.append(str(error)))
        opened.goto("/sign-in")
        opened.fill("input[name=name]", name)
        opened.fill("input[name=password]", PASSWORDS[name])
        opened.click("main button")
        opened.wait_for_url("**/")
        return opened

    yield open_as
    for context in contexts:
        context.close()


@pytest.fixture
def at_work(children: Children, database_url: str, redis_url: str) -> None:
    """Two workers and the loops of the shop."""
    env = {"FLASK_SQLALCHEMY_DATABASE_URI": database_url, "FLASK_OPSJOBS_REDIS_URL": redis_url}
    for command in ("worker", "worker", "run"):
        words = ("-m", "flask", "--app", "examples/flask_host", "opsjobs", command)
        children.python(*words, env=env)


def state(db: Any, job_id: int) -> str:
    """A job's state, as it is committed."""
    db.session.rollback()
    found = db.session.scalar(text("SELECT state FROM opsjobs.jobs WHERE id = :id"), {"id": job_id})
    return str(found)


def failed_for_want_of_its_invoice(shop: ModuleType, db: Any, invoice_id: int) -> int:
    """A job that failed because the shop forgot the invoice; the shop then adds it."""
    job = shop.tasks.process_invoice.enqueue(account_id=1, invoice_id=invoice_id)
    db.session.commit()
    wait_until(lambda: state(db, job.id) == "failed", 40, what="the job to fail")
    db.session.add(shop.models.Invoice(id=invoice_id, customer_id=1, cents=1250))
    db.session.commit()
    return int(job.id)


def give_reason(page: Any, reason: str) -> None:
    """Fill in the reason of the preview that is open, and carry it out."""
    page.fill("#dialog-page #reason", reason)
    page.click("#dialog-page .foot .btn.main")


def audit_row_of_what_was_done(page: Any) -> str:
    """Wait for the receipt, said in place or on its own page; the address of its audit row."""
    link = page.locator("#toast a:has-text('Audit'), #dialog-page[data-done] a:has-text('Audit')")
    link.wait_for()
    return str(link.get_attribute("href"))


def test_a_failed_job_is_found_retried_and_seen_in_the_audit(
    at_work: None,
    shop: ModuleType,
    app: Flask,
    db: Any,
    open_as: OpenPage,
    noise: list[str],
    javascript: bool,
) -> None:
    job_id = failed_for_want_of_its_invoice(shop, db, 771)
    page = open_as("ops-demo", javascript=javascript)
    page.goto("/ops/jobs")

    def is_said() -> bool:
        page.reload()
        return "process_invoice fails" in page.inner_text("main")

    wait_until(is_said, 40, what="the overview to say that the task fails", every=LOOK)
    page.click("nav.side >> text=Jobs")
    page.fill("#q", "state:failed task:process_invoice args.invoice_id:771")
    page.press("#q", "Enter")
    page.click(f"table.jobs a.id >> text='{job_id}'")
    page.wait_for_url(f"**/jobs/{job_id}")
    assert "invoice 771 does not exist" in page.inner_text("main")

    page.click("main button >> text=/^Retry/")
    page.wait_for_selector("#dialog-page #reason")
    assert "available" in page.inner_text("#dialog-page table.diff")
    give_reason(page, REASON)
    audited = audit_row_of_what_was_done(page)
    wait_until(lambda: state(db, job_id) == "finished", 30, what="the job to finish")
    page.goto(f"/ops/jobs/jobs/{job_id}")
    page.wait_for_selector(".chip.big[data-is=finished]")
    assert REASON in page.inner_text("main")

    page.goto(audited)
    for words in ("job.retry", REASON, "ops-demo", f"job/{job_id}", "failed", "available"):
        assert words in page.inner_text("main"), words
    page.click("nav.side >> text=Audit")
    page.wait_for_url("**/audit")
    assert REASON in page.inner_text("table.audit")
    verified = app.test_cli_runner().invoke(args=["opsjobs", "audit", "verify"])
    assert verified.exit_code == 0, verified.output
    assert noise == []


def test_a_waiting_job_says_why(
    shop: ModuleType, db: Any, open_as: OpenPage, javascript: bool
) -> None:
    job = shop.tasks.render_report.enqueue("revenue")
    db.session.commit()
    page = open_as("ops-demo", javascript=javascript)
    page.goto(f"/ops/jobs/jobs/{job.id}")
    assert "no_live_worker" in page.inner_text("ol.why")
    page.goto("/ops/jobs/queues/reports")
    page.click("main button >> text=/^Pause/")
    give_reason(page, "The vendor asked for quiet")
    audit_row_of_what_was_done(page)
    page.goto(f"/ops/jobs/jobs/{job.id}")
    said = page.inner_text("ol.why li >> nth=0")
    assert "queue_paused" in said
    assert "ops-demo" in said
    assert "The vendor asked for quiet" in said


def test_a_bulk_discard_leaves_out_what_cannot_be(
    at_work: None,
    shop: ModuleType,
    db: Any,
    open_as: OpenPage,
    noise: list[str],
    javascript: bool,
) -> None:
    avatar = shop.tasks.resize_avatar
    ended = [avatar.enqueue(user_id=number).id for number in (1, 2)]
    waiting = [avatar.options(delay=3600).enqueue(user_id=number).id for number in (3, 4, 5)]
    db.session.commit()
    for job_id in ended:
        wait_until(lambda one=job_id: state(db, one) == "finished", 30)
    page = open_as("ops-demo", javascript=javascript)
    page.goto("/ops/jobs/jobs?task=resize_avatar")
    for job_id in (*ended, *waiting):
        page.check(f"input[name=job][value='{job_id}']")
    page.click(".bulk button >> text=/^Discard/")
    page.wait_for_selector("#dialog-page #reason")
    assert page.inner_text("#dialog-page .foot .btn.main") == "Discard 3 jobs"
    assert "2 are skipped" in page.inner_text("#dialog-page #preview-skipped")
    give_reason(page, "Nobody needs these avatars")
    audit_row_of_what_was_done(page)
    assert {state(db, job_id) for job_id in waiting} == {"failed"}
    assert {state(db, job_id) for job_id in ended} == {"finished"}
    assert noise == []


def test_a_preview_that_drifted_is_refused_and_keeps_the_reason(
    shop: ModuleType, app: Flask, db: Any, open_as: OpenPage, javascript: bool
) -> None:
    job = shop.tasks.resize_avatar.options(delay=3600).enqueue(user_id=9)
    db.session.commit()
    page = open_as("ops-demo", javascript=javascript)
    page.goto(f"/ops/jobs/jobs/{job.id}")
    page.click("main button >> text=/^Discard/")
    page.wait_for_selector("#dialog-page #reason")
    operator = Operator(app.extensions["opsjobs"])
    operator.run("job.cancel", [f"job/{job.id}"], actor="admin", reason="Somebody was quicker")
    give_reason(page, "A reason that took a while to write")
    page.wait_for_selector("#dialog-page #preview-drift")
    page.wait_for_load_state()
    drift = page.inner_text("#dialog-page")
    assert "scheduled" in drift
    assert "canceled" in drift
    assert page.input_value("#kept") == "A reason that took a while to write"
    assert state(db, job.id) == "canceled"


def test_who_may_not_is_told_what_is_missing(
    shop: ModuleType, db: Any, open_as: OpenPage, live_url: str
) -> None:
    job = shop.tasks.resize_avatar.options(delay=3600).enqueue(user_id=9)
    db.session.commit()
    page = open_as("viewer")
    page.goto(f"/ops/jobs/jobs/{job.id}")
    assert page.is_disabled("main button >> text=/^Cancel/")
    assert "needs job.cancel" in page.inner_text("main")
    answer = page.context.request.post(
        f"{live_url}/ops/jobs/jobs/{job.id}/cancel", headers={"Origin": live_url}
    )
    assert answer.status == 403
    assert "job.cancel" in answer.text()
    assert state(db, job.id) == "scheduled"


def let_a_slot_come(app: Flask, name: str) -> None:
    """What the cron loop does when the next slot of an entry has come,
    at that moment instead of next night.
    """
    host = app.extensions["opsjobs"]
    connection = connect_apart(host.engine)
    (entry,) = transitions.read(connection, [name]).values()
    slot = next(entry.schedule.slots_after(entry.checked_until))
    with connection.transaction():
        SlotDecider(connection, host, endings.stop, slot).decide(name, SlotReport())
    connection.close()


def test_nightly_sync_is_paused_resumed_run_manually_and_found_in_the_audit(
    at_work: None,
    app: Flask,
    db: Any,
    open_as: OpenPage,
    noise: list[str],
    javascript: bool,
) -> None:
    known = text("SELECT count(*) FROM opsjobs.cron_entries WHERE name = 'nightly_sync'")
    wait_until(lambda: db.session.rollback() or db.session.scalar(known), 40, what="the entry")
    page = open_as("ops-demo", javascript=javascript)
    page.goto("/ops/jobs/cron")
    page.click("a.name:has-text('nightly_sync')")
    rows = []
    for button, reason in (
        ("Pause…", "The CRM is moved tonight, OPS-311"),
        ("Resume…", "The CRM has moved, OPS-311"),
        ("Run now…", "Copy what the night has missed, OPS-311"),
    ):
        page.goto("/ops/jobs/cron/nightly_sync")
        page.click(f".head .actions button:has-text('{button}')")
        give_reason(page, reason)
        rows.append(audit_row_of_what_was_done(page))
        if button == "Pause…":
            let_a_slot_come(app, "nightly_sync")
            page.goto("/ops/jobs/cron/nightly_sync")
            assert page.locator("td[data-label=result]").first.inner_text().strip() == "paused"
            assert reason in page.locator(".say").inner_text()
            page.click(".fresh a:has-text('Forensics')")
            page.wait_for_load_state()
            said = page.locator("main").inner_text()
            assert reason in said
            assert "OpsJobs-native" in said
            page.locator(".line a.source").first.click()
            page.wait_for_load_state()
            assert reason in page.locator("main").inner_text()
    page.goto("/ops/jobs/cron/nightly_sync")
    results = page.locator("td[data-label=result]").all_inner_texts()
    assert sorted(result.strip() for result in results) == ["manual", "paused"]
    job = page.locator("td[data-label=job] a").first.get_attribute("href")
    wait_until(lambda: state(db, int(job.rpartition("/")[2])) == "finished", 40, what="the job")
    page.goto(str(job))
    assert "nightly_sync" in page.locator("section[aria-labelledby=relations]").inner_text()
    for row, action in zip(rows, ("pause", "resume", "run_now"), strict=True):
        page.goto(row)
        said = page.locator("main").inner_text()
        assert f"cron.{action}" in said
        assert "ops-demo" in said
        assert "OPS-311" in said
    assert noise == []
