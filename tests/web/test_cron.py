"""The cron pages: entries, one entry with its run history, the form of a new one;
and the actions behind them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.cron import transitions
from flask_opsjobs.cron.lifecycle import RESULTS
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.loops import cron as cron_loop
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.web.audit import view as audit
from tests.web.every import soup
from tests.web.rows import EXPIRE_PREVIEWS, make_entry, make_job

SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
WHY: dict[str, Any] = {"actor": "tester", "reason": "because it is a test"}
Get = Callable[..., Any]
NEW = {
    "name": "hourly",
    "task": "sync",
    "expression": "0 * * * *",
    "zone": "Europe/Paris",
    "overlap": "skip",
    "catch_up": "3",
    "args": '{"account": 7, "secret": "hidden"}',
}


@pytest.fixture
def entry(host: Host, opsjobs: OpsJobs) -> Runner:
    """The entry `nightly` of a task `sync`, taken over three hours ago by a cron loop that then slept.

    Its slots are about half an hour away from now, in either direction: none comes while a test runs, and
    none has come so lately that it would still be run. Three have come since then.
    """

    def sync(account: int = 0, secret: str = "") -> None:
        """Does nothing."""

    opsjobs.cron(f"{_far_minute()} * * * *", name="nightly", args={"account": 42})(
        opsjobs.task(redact={"secret"})(sync)
    )
    runner = Runner(cron_loop.LOOP, host, "one")
    look(runner, hours=-3)
    return runner


def _far_minute() -> int:
    """The minute of the hour half an hour away; never 0, which pages word in another way."""
    return (datetime.now(UTC).minute + 30) % 60 or 1


def look(runner: Runner, **span: float) -> None:
    """One pass of the cron loop, so long from now."""
    connection = connect_apart(runner.host.engine)
    try:
        runner.run_once(connection, read_clock(connection) + timedelta(**span))
    finally:
        connection.close()
    assert runner.last_error is None


def test_the_list_says_when_each_entry_runs(get: Get, entry: Runner) -> None:
    look(entry)
    page = soup(get("/cron").text)
    row = page.select_one("tr[data-row]")
    assert "nightly" in row.th.text
    assert re.search(r"At minute \d+ of every hour, UTC", row.text)
    assert len(row.select("td[data-label=next] time")) == 3
    strip = row.select_one("svg.strip")
    assert strip["aria-label"].startswith("3 slots: ")
    assert "missed" in strip["aria-label"]
    assert "missed" in page.select_one(".say").text
    legend = [chip.text.strip() for chip in page.select(".legend .chip")]
    assert legend == [result.word for result in RESULTS.values()]


def test_every_moment_has_its_day_and_its_zone(get: Get, entry: Runner) -> None:
    """An entry has a zone of its own, and most of its slots are of another day."""
    for is_running in (False, True):
        if is_running:
            look(entry)
        for path in ("/cron", "/cron/nightly"):
            times = soup(get(path).text).select("#part time:not([data-as=ago])")
            assert len(times) > 3
            for time in times:
                assert re.fullmatch(r"\d{4}(-\d\d){2} \d\d(:\d\d){2} UTC", time.text), time
    own = soup(get("/cron/nightly").text).select_one("ol.slots li").text
    assert re.fullmatch(r"\s*will run\s*\d{4}(-\d\d){2} \d\d(:\d\d){2} UTC, .*\s*", own), (
        "once, not twice"
    )


def test_a_slot_in_another_zone_is_told_there_and_in_utc(get: Get, session: Session) -> None:
    make_entry(session, make_job(session))
    session.commit()
    slot = soup(get("/cron/default").text).select_one("ol.slots li").text
    assert re.search(r"\d\d [A-Z][a-z]{2} \d\d:\d\d Europe/Paris \d{4}-\d\d-\d\d ", slot)


def test_while_the_cron_loop_does_not_run_nothing_is_called_well(get: Get, entry: Runner) -> None:
    """Its slots of three hours are not in the run history yet, so none of them is missed."""
    for path in ("/cron", "/cron/nightly"):
        page = soup(get(path).text)
        assert "The cron loop does not run: it last ran at" in page.select_one(".say").text
        assert "no slot was missed" not in page.text
    assert "should run" in page.select_one("ol.slots").text
    look(entry)
    for path in ("/cron", "/cron/nightly"):
        assert "The cron loop does not run" not in get(path).text
    assert "will run" in soup(get("/cron/nightly").text).select_one("ol.slots").text


def test_an_entry_that_a_running_cron_loop_leaves_is_told(
    get: Get, entry: Runner, opsjobs: OpsJobs
) -> None:
    """It does not know the task, and newer code may."""
    task = opsjobs.tasks.pop("sync")
    look(entry)
    opsjobs.tasks["sync"] = task
    for path in ("/cron", "/cron/nightly"):
        page = soup(get(path).text)
        assert any(
            "nightly has slots without a result since" in one.text for one in page.select(".say")
        )
        assert "no slot was missed" not in page.text


@pytest.mark.parametrize("days", [3, 70])
def test_an_outage_that_began_long_ago_is_told_everywhere(
    get: Get, entry: Runner, host: Host, days: int
) -> None:
    connection = connect_apart(host.engine)
    connection.execute(
        "UPDATE opsjobs.cron_entries SET checked_until = checked_until - %s * interval '24 h'",
        [days],
    )
    connection.close()
    look(entry)
    for path in ("/cron", "/cron/nightly"):
        page = soup(get(path).text)
        (number,) = re.findall(r"missed ([\d,]+) slots", page.select_one(".say").text)
        assert int(number.replace(",", "")) == days * 24 + 3
        assert f"{number} slots missed" in page.select_one("nav a[href$='/cron']").text
    assert "missed" in soup(get("/cron/nightly").text).select_one("td[data-label=result]").text
    assert "missed" in page.select_one("svg.cal")["aria-label"]


def test_a_zone_that_has_vanished_is_told_and_hides_no_other_entry(
    get: Get, entry: Runner, host: Host, opsjobs: OpsJobs
) -> None:
    opsjobs.cron("@daily", name="other")(opsjobs.tasks["sync"])
    look(Runner(cron_loop.LOOP, host, "two"))
    connection = connect_apart(host.engine)
    connection.execute("UPDATE opsjobs.cron_entries SET zone = 'Gone/Zone' WHERE name = 'nightly'")
    connection.close()
    for path in ("/cron", "/cron/nightly"):
        assert (
            "this server does not know the time zone Gone/Zone"
            in soup(get(path).text).select_one(".say").text
        )
    assert "other" in get("/cron").text
    following = soup(get("/cron/nightly").text).select_one("ol.slots").text
    assert following.strip() == "None: this server does not know the time zone Gone/Zone."


def test_a_pause_hides_no_slots_that_were_missed_before_it(
    get: Get, entry: Runner, host: Host
) -> None:
    look(entry)
    Operator(host).pause_cron("nightly", **WHY)
    for path in ("/cron", "/cron/nightly"):
        page = soup(get(path).text)
        paused, missed = (line.text for line in page.select(".say"))
        leads_to = [link["href"] for link in page.select(".say a")]
        assert leads_to == ["/ops/jobs/cron/nightly"] * 2 * (path == "/cron")
        assert "nightly is paused since" in paused
        assert re.search(r"nightly missed \d slots?", missed)


def test_an_entry_of_a_paused_task_says_so(get: Get, entry: Runner, host: Host) -> None:
    look(entry)
    Operator(host).run("task.pause", ["task/sync"], **WHY)
    for path in ("/cron", "/cron/nightly"):
        page = soup(get(path).text)
        said = " ".join(page.select_one(".say").text.split())
        assert said.startswith("nightly does not run: its task sync is paused since")
        assert f"by {WHY['actor']}: “{WHY['reason']}”" in said
        assert "will be recorded as paused" in said
        assert page.select_one(".say a[href='/ops/jobs/tasks/sync']")
        assert "task paused" in [chip.text.strip() for chip in page.select(".chip, .is")]
    assert "will be paused" in soup(get("/cron/nightly").text).select_one("ol.slots").text


def test_what_newer_slots_hide_is_not_denied(
    get: Get, host: Host, opsjobs: OpsJobs, entry: Runner
) -> None:
    """More slots than the strip shows have come since the missed ones and since the job that still runs."""
    opsjobs.cron("* * * * *", name="often")(opsjobs.tasks["sync"])
    runner = Runner(cron_loop.LOOP, host, "two")
    for minutes in (90, 60, *range(25, -1, -1)):
        look(runner, minutes=-minutes)
    page = soup(get("/cron").text)
    assert any("often missed" in line.text for line in page.select(".say"))
    (often,) = [row for row in page.select("tr[data-row]") if "often" in row.th.text]
    assert often.select_one("td[data-label=last]").text.strip() == "none in 20 slots"


def test_an_entry_shows_its_run_history_in_words_and_as_a_calendar(
    get: Get, entry: Runner, host: Host
) -> None:
    Operator(host).run_cron_now("nightly", **WHY)
    page = soup(get("/cron/nightly").text)
    assert page.h1.text == "nightly"
    results = [cell.text.strip() for cell in page.select("td[data-label=result]")]
    assert results[0] == "manual"
    assert results[1].startswith("missed")
    assert "manual" in page.select_one("svg.cal")["aria-label"]
    job = page.select_one("td[data-label=job] a")
    assert page.select_one("td[data-label=ended]").text == "not yet"
    assert get(str(job["href"]).removeprefix("/ops/jobs"))
    assert "account" in page.select_one(".facts").text


def test_without_the_permission_for_payload_its_arguments_are_hidden(
    get: Get, entry: Runner, access: Any
) -> None:
    access.held.remove("payload.view")
    assert '"account"' not in get("/cron/nightly").text


def test_without_it_the_run_history_still_says_why(get: Get, entry: Runner, access: Any) -> None:
    look(entry)
    access.held.remove("payload.view")
    assert "the cron loop did not run from" in get("/cron/nightly").text


def test_a_plan_and_the_form_show_arguments_to_whom_may_see_them(
    client: FlaskClient, get: Get, host: Host, access: Any, entry: Runner
) -> None:
    what = {key: value for key, value in NEW.items() if key != "name"}
    Operator(host).create_cron("hourly", what, **WHY)
    changed = NEW | {"args": '{"account": 47110815}'}
    assert "account" in get("/edit/cron/hourly").text
    answer = client.post("/ops/jobs/cron/hourly/edit", data=changed, headers=SAME_ORIGIN)
    shown = answer.headers["Location"]
    assert "47110815" in client.get(shown).text
    access.denied.add(("payload.view", "cron/hourly"))
    assert "account" not in get("/edit/cron/hourly", status=403).text
    hidden = client.get(shown)
    assert hidden.status_code == 200
    assert "47110815" not in hidden.text
    # Typing arguments would tell which ones differ, and faults of them what is there.
    refused = client.post("/ops/jobs/cron/hourly/edit", data=changed, headers=SAME_ORIGIN)
    assert refused.status_code == 403
    assert "payload.view" in refused.text


def test_a_preview_of_several_calls_them_cron_entries(
    get: Get, host: Host, access: Any, entry: Runner
) -> None:
    operator, what = Operator(host), {key: value for key, value in NEW.items() if key != "name"}
    operator.create_cron("hourly", what, **WHY)
    targets = ["cron/nightly", "cron/hourly"]
    made = operator.preview("cron.pause", targets, actor="tester", via="page")
    page = soup(get(f"/previews/{made.id}").text)
    assert page.h1.text == "Pause 2 cron entries"
    assert [button.text for button in page.select("#dialog-page button")] == [page.h1.text]
    change = page.find(id="preview-change")
    assert " ".join(change.text.split()) == "What will change, for 2 cron entries"
    assert page.select_one("#dialog-page summary").text == "Which cron entries"
    assert page.select_one("nav.side [aria-current=page]").text.startswith("Cron")
    many = [f"cron/{number}" for number in range(101)]
    with pytest.raises(ActionRefused, match="at most 100 cron entries at once, got 101"):
        operator.preview("cron.pause", many, actor="tester", via="page")


def test_an_expired_edit_is_offered_again_only_to_whom_may_see_its_arguments(
    client: FlaskClient, host: Host, access: Any, entry: Runner, session: Session
) -> None:
    operator, what = Operator(host), {key: value for key, value in NEW.items() if key != "name"}
    operator.create_cron("hourly", what, **WHY)
    params = what | {"args": {"account": 47110815}}
    made = operator.preview("cron.edit", ["cron/hourly"], actor="tester", via="page", params=params)
    session.execute(text(EXPIRE_PREVIEWS))
    session.commit()
    path = f"/ops/jobs/previews/{made.id}"
    shown = client.get(path).text
    assert "Preview again" in shown
    assert "47110815" in shown
    access.denied.add(("payload.view", "cron/hourly"))
    hidden = client.get(path).text
    assert "This preview has expired" in hidden
    assert "Preview again" not in hidden
    assert "47110815" not in hidden


@pytest.mark.parametrize(
    ("has_payload", "lost"), [(True, ()), (False, (None, "cron/hourly")), (False, ("cron/hourly",))]
)
def test_arguments_in_a_drift_and_in_the_audit_are_for_whom_may_see_them(
    client: FlaskClient,
    get: Get,
    host: Host,
    access: Any,
    entry: Runner,
    has_payload: bool,
    lost: tuple[str | None, ...],
) -> None:
    operator, what = Operator(host), {key: value for key, value in NEW.items() if key != "name"}
    operator.create_cron("hourly", what | {"args": {"account": 471147111}}, **WHY)
    access.denied |= {("payload.view", subject) for subject in lost}
    answer = client.post("/ops/jobs/cron/hourly/pause", headers=SAME_ORIGIN)
    run = soup(client.get(answer.headers["Location"]).text).select_one("form[action$='/execute']")
    fields = {field["name"]: field.get("value", "") for field in run.select("input[name]")}
    operator.edit_cron("hourly", what | {"args": {"account": 471147112}}, **WHY)
    fields["reason"] = "because it is a test"
    drifted = client.post(str(run["action"]), data=fields, headers=SAME_ORIGIN)
    assert drifted.status_code == 409
    # That they changed is told to everybody.
    assert "cron hourly args" in drifted.text
    pages = [get(f"/audit/{number}").text for number in (1, 2, 3)]
    assert all("args" in page for page in pages)
    files = [get(f"/audit.{kind}").text for kind in ("csv", "ndjson")]
    for shown in (drifted.text, *pages, *files, get("/audit?row=1").text):
        assert ("account" in shown, "47114711" in shown) == (has_payload, has_payload)


def test_arguments_of_one_entry_are_hidden_in_the_later_batches_of_an_export_as_well(
    get: Get, host: Host, access: Any, entry: Runner, monkeypatch: Any
) -> None:
    what = {key: value for key, value in NEW.items() if key != "name"}
    accounts = [4711_0815_0000 + number for number in range(6)]  # so long that no hash contains one
    for number, account in enumerate(accounts):
        values = what | {"args": {"account": account}}
        Operator(host).create_cron(f"hourly-{number}", values, **WHY)
    access.denied |= {("payload.view", f"cron/hourly-{number}") for number in (0, 3)}
    monkeypatch.setattr(audit, "_BATCH", 1)
    for kind in ("csv", "ndjson"):
        shown = get(f"/audit.{kind}").text
        seen = [str(account) in shown for account in accounts]
        assert seen == [False, True, True, False, True, True]
        asked = access.asked.count(("payload.view", "cron/hourly-1"))
        assert asked == 1, "once for both sides of the row"
        access.asked.clear()


def test_what_was_kept_before_its_worker_redacted_it_is_not_shown(
    get: Get, host: Host, opsjobs: OpsJobs, entry: Runner
) -> None:
    def call(account: int = 0, secret: str = "") -> None:
        """Does nothing."""

    what = {key: value for key, value in NEW.items() if key != "name"} | {"task": "later"}
    opsjobs.task(name="later")(call)
    Operator(host).create_cron("hourly", what | {"args": {"secret": "k-4711"}}, **WHY)
    del opsjobs.tasks["later"]
    opsjobs.task(name="later", redact={"secret"})(call)
    for page in ("/cron/hourly", "/edit/cron/hourly"):
        assert "k-4711" not in get(page).text


def test_an_entry_that_is_not_there_is_a_page_that_says_so(get: Get) -> None:
    for path in ("/cron/nobody", "/live/cron/nobody", "/edit/cron/nobody"):
        assert "No such cron entry" in get(path, status=404).text


def test_an_entry_that_is_not_there_is_told_with_those_that_are(get: Get, session: Session) -> None:
    for number in range(7):
        make_entry(session, make_job(session, queue=f"entry-{number}"))
    session.commit()
    said = get("/cron/entry", status=404).text
    assert "Known are entry-0, entry-1, entry-2, entry-3, entry-4 and 2 more." in said


def send(client: FlaskClient, path: str, **form: str) -> Any:
    """Send a form, follow to its preview, and execute that."""
    answer = client.post(f"/ops/jobs{path}", data=form, headers=SAME_ORIGIN)
    assert answer.status_code == 303, answer.text
    shown = soup(client.get(answer.headers["Location"]).text)
    run = shown.select_one("form[action$='/execute']")
    fields = {field["name"]: field.get("value", "") for field in run.select("input[name]")}
    fields["reason"] = "because it is a test"
    done = client.post(str(run["action"]), data=fields, headers=SAME_ORIGIN)
    return soup(client.get(done.headers["Location"]).text if done.status_code == 303 else done.text)


def test_pause_resume_and_run_now_from_the_page(
    client: FlaskClient, get: Get, entry: Runner, host: Host
) -> None:
    send(client, "/cron/nightly/pause")
    page = get("/cron/nightly").text
    assert "because it is a test" in page
    look(entry, hours=1)
    assert "paused" in soup(get("/cron/nightly").text).select_one("td[data-label=result]").text
    send(client, "/cron/nightly/resume")
    send(client, "/cron/nightly/run_now")
    results = [
        td.text.strip() for td in soup(get("/cron/nightly").text).select("td[data-label=result]")
    ]
    assert "manual" in results
    decided = [td.text for td in soup(get("/cron/nightly").text).select("td.mono")]
    assert decided == ["cron.run_now", "cron.resume", "cron.pause"]


def test_missed_slots_are_made_up_for_once(
    client: FlaskClient, get: Get, entry: Runner, host: Host
) -> None:
    look(entry)
    operator = Operator(host)
    receipt = operator.catch_up_cron("nightly", 1, **WHY)
    assert [change.what for change in receipt.done[0].changes] == ["new job"]
    receipt = operator.catch_up_cron("nightly", 100, **WHY)
    made = 1 + len(receipt.done[0].changes)
    assert made == 3
    with pytest.raises(ActionRefused, match=r"every missed slot .* has been caught up"):
        operator.catch_up_cron("nightly", 1, **WHY)
    results = [
        td.text.strip() for td in soup(get("/cron/nightly").text).select("td[data-label=result]")
    ]
    assert results.count("manual") == made
    assert any(result.startswith("missed") for result in results), "that it was missed stays"


def test_after_a_clock_was_stepped_back_the_next_slots_are_those_without_a_result(
    get: Get, entry: Runner
) -> None:
    look(entry, hours=5)
    connection = connect_apart(entry.host.engine)
    (nightly,) = transitions.read(connection, ["nightly"]).values()
    first = soup(get("/cron/nightly").text).select_one("ol.slots li").text
    assert f"{nightly.schedule.next(nightly.checked_until, 1)[0]:%Y-%m-%d %H:%M}" in first
    connection.close()


def show_runs(client: FlaskClient, path: str, **form: str) -> Any:
    """Press the button that shows the next runs; the page that answers."""
    button = soup(client.get(f"/ops/jobs{path}").text).select_one("form button[formaction]")
    assert button.get("formmethod") is None, "an address stands in logs"
    return soup(client.post(str(button["formaction"]), data=form, headers=SAME_ORIGIN).text)


def test_a_page_that_answers_what_was_sent_leads_back_to_one_that_can_be_asked_for(
    client: FlaskClient, entry: Runner
) -> None:
    sent = NEW | {"back": "/ops/jobs/cron"}
    answer = client.post("/ops/jobs/new/cron/runs", data=sent, headers=SAME_ORIGIN)
    form = soup(answer.text).select_one("form.prefs")
    assert form.select_one("[name=back]")["value"] == "/ops/jobs/cron"


def test_a_new_entry_shows_its_runs_before_anything_is_saved(
    client: FlaskClient, entry: Runner
) -> None:
    page = show_runs(client, "/new/cron", **NEW | {"expression": "30 3 * * *"})
    runs = page.select("ol.slots li")
    assert len(runs) == 10
    assert "At 03:30 every day" in page.text
    assert page.select_one("#entry-name")["value"] == "hourly"
    wrong = show_runs(client, "/new/cron", **NEW | {"expression": "61 * * * *"})
    assert "the field minute is '61'" in wrong.select_one("#r-expression").text
    assert wrong.select_one("#entry-expression")["aria-invalid"] == "true"
    assert wrong.select_one("#entry-expression")["value"] == "61 * * * *"


def test_a_change_shows_its_runs_before_anything_is_saved(
    client: FlaskClient, host: Host, entry: Runner
) -> None:
    what = {key: value for key, value in NEW.items() if key != "name"}
    Operator(host).create_cron("hourly", what, **WHY)
    page = show_runs(client, "/edit/cron/hourly", **what | {"expression": "30 3 * * *"})
    assert len(page.select("ol.slots li")) == 10
    assert page.select_one("#entry-expression")["value"] == "30 3 * * *"
    assert page.select_one("main input[name=back]")["value"] == "/ops/jobs/cron/hourly"


def test_an_entry_is_made_changed_and_deleted_at_runtime(
    client: FlaskClient, get: Get, entry: Runner, host: Host
) -> None:
    send(client, "/new/cron/preview", **NEW)
    connection = connect_apart(host.engine)
    (made,) = transitions.read(connection, ["hourly"]).values()
    assert (made.origin, made.zone, made.catch_up_limit) == ("runtime", "Europe/Paris", 3)
    assert made.args == {"account": 7}
    kept = connection.execute("SELECT previews::text FROM opsjobs.previews").fetchall()
    kept += connection.execute("SELECT audit_events::text FROM opsjobs.audit_events").fetchall()
    assert "hidden" not in str(kept)
    form = soup(get("/edit/cron/hourly").text)
    assert form.select_one("#entry-expression")["value"] == "0 * * * *"
    send(client, "/cron/hourly/edit", **NEW | {"expression": "15 * * * *"})
    (changed,) = transitions.read(connection, ["hourly"]).values()
    assert changed.expression == "15 * * * *"
    send(client, "/cron/hourly/delete")
    assert transitions.read(connection, ["hourly"]) == {}
    connection.close()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"expression": "* * * *"}, "has 4 fields"),
        ({"zone": "Europe/Pari"}, "did you mean"),
        ({"task": "nobody"}, "there is no task"),
        ({"args": "{"}, "args is not JSON"),
        ({"args": '{"no": 1}'}, "no"),
        ({"overlap": "sometimes"}, "overlap must be one of"),
        ({"catch_up": "0"}, "catch_up must be"),
        ({"name": "a b"}, "use 1 to 200 letters"),
        # The last of five faults: none is cut off.
        ({"expression": "61 25 32 13 8"}, "the field day of the week is '8'"),
    ],
)
def test_nonsense_is_refused_with_its_place_in_the_form_that_was_sent(
    client: FlaskClient, entry: Runner, host: Host, changes: dict[str, str], says: str
) -> None:
    sent, what = NEW | changes, {key: value for key, value in NEW.items() if key != "name"}
    Operator(host).create_cron("there", what, **WHY)
    for place in ("/new/cron/preview", "/cron/there/edit"):
        if "edit" in place and "name" in changes:
            continue
        answer = client.post(f"/ops/jobs{place}", data=sent, headers=SAME_ORIGIN)
        assert answer.status_code == 422
        main = soup(answer.text).main
        assert main.select_one("form [role=alert]")
        ((field, _),) = changes.items()
        assert says in main.select_one(f"#r-{field} [data-is=refused]").text
        assert len(main.select("small [data-is=refused]")) == 1
        assert main.select_one("#entry-expression")["value"] == sent["expression"]
        assert main.select_one("#entry-args").text == sent["args"]
        picked = [option["value"] for option in main.select("option[selected]")]
        assert sent["task"] in picked


def test_each_fault_of_a_form_stands_below_its_own_field(
    client: FlaskClient, entry: Runner
) -> None:
    sent = {"name": "a b", "args": "{", "expression": "*/90 * * * *", "zone": "Europe/Pari"}
    sent |= {"overlap": "cancel_previous", "catch_up": "0"}
    answer = client.post("/ops/jobs/new/cron/preview", data=NEW | sent, headers=SAME_ORIGIN)
    wrong = [mark.parent["id"] for mark in soup(answer.text).select("small [data-is=refused]")]
    assert wrong == ["r-name", "r-args", "r-expression", "r-zone", "r-catch_up"]


def test_a_form_gives_back_what_was_typed_as_it_was(
    client: FlaskClient, get: Get, opsjobs: OpsJobs, host: Host, entry: Runner
) -> None:
    opsjobs.task(name="say")(_say)
    what = {key: value for key, value in NEW.items() if key != "name"}
    Operator(host).create_cron("told", what | {"task": "say", "args": {"text": "\x7f"}}, **WHY)
    form = soup(get("/edit/cron/told").text)
    typed = {
        "args": form.select_one("#entry-args").text,
        "task": "say",
        "expression": "1 * * * *",
    }
    send(client, "/cron/told/edit", **what | typed)
    del opsjobs.tasks["say"]
    (picked,) = soup(get("/edit/cron/told").text).select("#entry-task [selected]")
    assert "not declared here" in picked.text


def _say(text: str) -> None:
    """Does nothing."""


def test_what_code_declares_is_not_edited_here(entry: Runner, host: Host) -> None:
    what = {key: value for key, value in NEW.items() if key != "name"}
    for action, params in (("cron.edit", what), ("cron.delete", None)):
        receipt = Operator(host).run(action, ["cron/nightly"], params=params, **WHY)
        assert not receipt.is_done
        assert "the code declares it" in receipt.skipped[0].says


def test_the_form_of_what_code_declares_says_so(get: Get, entry: Runner) -> None:
    assert "the code declares it" in get("/edit/cron/nightly", status=422).text


def test_an_expired_plan_is_made_again_with_the_same_arguments(
    client: FlaskClient, host: Host, entry: Runner
) -> None:
    answer = client.post("/ops/jobs/new/cron/preview", data=NEW, headers=SAME_ORIGIN)
    connection = connect_apart(host.engine)
    connection.execute(EXPIRE_PREVIEWS)
    connection.close()
    form = soup(client.get(answer.headers["Location"]).text).select_one("main form")
    fields = {field["name"]: field["value"] for field in form.select("input[name]")}
    assert fields["args"] == '{"account": 7}'
    again = client.post(str(form["action"]), data=fields, headers=SAME_ORIGIN)
    assert again.status_code == 303, again.text
    assert "Create cron hourly" in client.get(again.headers["Location"]).text


def test_a_plan_that_has_drifted_is_refused(entry: Runner, host: Host) -> None:
    operator = Operator(host)
    shown = operator.preview("cron.run_now", ["cron/nightly"], actor="tester", via="page")
    operator.pause_cron("nightly", actor="l.brandt", reason="the vendor times out")
    receipt = operator.execute(shown.id, shown.token, **WHY)
    assert receipt.code == "drifted"
    # A slot that is decided meanwhile is no drift.
    operator.resume_cron("nightly", **WHY)
    shown = operator.preview("cron.run_now", ["cron/nightly"], actor="tester", via="page")
    look(entry)
    assert operator.execute(shown.id, shown.token, **WHY).is_done


def test_a_slot_before_the_pause_is_not_paused(entry: Runner, host: Host) -> None:
    Operator(host).pause_cron("nightly", **WHY)
    connection = connect_apart(host.engine)
    results = connection.execute("SELECT DISTINCT result FROM opsjobs.cron_slots").fetchall()
    connection.close()
    assert ("paused",) not in results
    assert ("missed",) in results
