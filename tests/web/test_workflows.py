"""The pages of workflows: the list of runs, and one run with its steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import update
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs, Task
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.jobs.models import Callback
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.models import StepRecord
from tests.support.engine import Bench
from tests.support.graphs import Graph, settle_all
from tests.web.conftest import Access
from tests.web.every import soup
from tests.web.rows import ago, make_batch, make_job, make_run, make_signal

PAYMENT = ("payment", "order-1")


def words(found: Any) -> str:
    """The text of a part of a page, with single spaces."""
    return " ".join(found.get_text(" ").split())


@pytest.fixture
def graph(bench: Bench) -> Graph:
    """A running workflow: `a` failed, so `b` was canceled; `paid` waits; `d` is to be started."""
    graph = Graph.make(
        bench.connection, "a d b paid", ["a b"], waits={"paid": PAYMENT}, on_end=None
    )
    graph.end("a", "failed")
    for _ in range(3):
        advance(bench.connection, graph.run, 1_000_000)
    return graph


def rows(page: Any, panel: str) -> dict[str, str]:
    """The rows of the table in the panel with this heading, by their first cell."""
    table = page.find(id=panel).find_parent("section").table
    return {words(row.th): words(row) for row in table.select("tbody tr")}


def test_a_run_that_goes_on_says_what_it_waits_for(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get("/workflows").text)
    (line,) = rows(page, "runs").values()
    assert "paid has waited for the signal payment" in line
    assert "and 1 more step" in line
    assert "2 of 4" in line


def test_its_page_says_so_too_and_lists_its_steps(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get(f"/workflows/{graph.run}").text)
    sentence = words(page.select_one("#part .say"))
    assert sentence.startswith("paid has waited for the signal payment")
    assert "1 step failed" in sentence
    table = rows(page, "steps")
    assert list(table) == ["a", "d", "b", "paid"]
    assert "waits for a signal" in table["paid"]
    assert "canceled" in table["b"]
    assert table["b"].endswith("a")
    assert table["d"].endswith("start")


def test_a_canceled_run_says_what_ended_it_and_who_asked(
    get: Callable[..., Any], bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    graph = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT}, on_end=None)
    opsjobs.operator.cancel_workflow(graph.run, actor="eva", reason="the order was withdrawn")
    advance(bench.connection, graph.run, 1_000_000)
    sentence = words(soup(get(f"/workflows/{graph.run}").text).select_one("#part .say"))
    assert sentence.replace(" :", ":").replace(" .", ".") == (
        "Canceled: it was canceled before all steps had ended. "
        "eva canceled it: “the order was withdrawn”"
    )


def test_the_sentence_of_a_run_walks_to_what_holds_it_up_as_why_does(
    get: Callable[..., Any], bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy, access: Access
) -> None:
    graph = Graph.make(bench.connection, "billing notify", ["billing notify"])
    path = f"/workflows/{graph.run}"

    def sentences() -> tuple[str, str, str]:
        """What the page of the run, the list and `why` say, without the time at the end."""
        said = opsjobs.explain(f"workflow/{graph.run}").says.partition(". 2 steps")[0]
        (line,) = rows(soup(get("/workflows").text), "runs").values()
        return words(soup(get(path).text).select_one("#part .say")), line, said

    for change, expected in {
        "attempt = 0": "notify waits for billing, which has been due",
        "state = 'retryable', attempt = 2, max_attempts = 5, due_at = now() + interval '1 h'": (
            "notify waits for billing, which backs off: attempt 3 of 5 at"
        ),
        "state = 'started', started_at = now()": "notify waits for billing, which has been running",
    }.items():
        bench.connection.execute(
            f"UPDATE opsjobs.jobs SET {change} WHERE id = %s",
            [graph.ids["billing"]],
        )
        for sentence in sentences():
            assert expected in sentence.replace(" ,", ","), sentence
    # Why a due step does not start is said too.
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'available', started_at = NULL WHERE state = 'started'"
    )
    assert "The dispatch loop has never run" in sentences()[0]
    # It is on the page of the job, too, which needs a permission of its own.
    access.denied = {("jobs.view", f"job/{graph.ids['billing']}")}
    assert "dispatch loop" not in sentences()[0]


def test_of_many_released_steps_all_three_name_the_one_that_most_likely_holds_the_run_up(
    get: Callable[..., Any], bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    # Seven run. Behind them are an open wait and one that backs off: `why` explains five steps.
    many = " ".join(f"part_{number}" for number in range(7))
    graph = Graph.make(
        bench.connection,
        f"{many} paid billing notify audit report",
        # However Postgres reads the edges, the first step behind it is named.
        [
            "paid report",
            "paid audit",
            "billing report",
            "billing audit",
            "paid notify",
            "billing notify",
        ],
        waits={"paid": PAYMENT},
    )
    advance(bench.connection, graph.run, 1_000_000)  # opens the wait
    started = [id for name, id in graph.ids.items() if name.startswith("part")]
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'started', started_at = now() WHERE id = ANY (%s)",
        [started],
    )

    def check(name: str) -> None:
        found = opsjobs.explain(f"workflow/{graph.run}")
        (line,) = rows(soup(get("/workflows").text), "runs").values()
        page = words(soup(get(f"/workflows/{graph.run}").text).select_one("#part .say"))
        for sentence in (found.says, line, page):
            assert f"notify waits for {name} which" in sentence.replace(",", "").replace("  ", " ")
        assert next(iter(found.frontier)) == name

    check("paid")
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'retryable', attempt = 2, max_attempts = 5,"
        " due_at = now() + interval '1 h' WHERE id = %s",
        [graph.ids["billing"]],
    )
    check("billing")


def test_a_link_chooses_a_step(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get(f"/workflows/{graph.run}?step={graph.ids['b']}").text)
    panel = words(page.find(id="step").find_parent("section"))
    assert panel.startswith("b canceled")
    assert "Because of a" in panel
    assert "After a" in panel
    panel = words(
        soup(get(f"/workflows/{graph.run}?step={graph.ids['paid']}").text)
        .find(id="step")
        .find_parent("section")
    )
    assert "payment , key order-1" in panel


def test_steps_of_one_state_are_listed_alone(get: Callable[..., Any], graph: Graph) -> None:
    assert list(rows(soup(get(f"/workflows/{graph.run}?show=failed").text), "steps")) == ["a"]
    nothing = soup(get(f"/workflows/{graph.run}?show=queued").text)
    assert "No step is in this state" in nothing.text


@pytest.mark.parametrize(
    "query",
    ["step=x", "step=9", f"step={'7' * 3_000}", "step=%00", "show=x", "page=0", "page=x"],
    ids=["no number", "no step", "long", "NUL", "no state", "page 0", "no page"],
)
def test_what_cannot_be_read_is_refused(get: Callable[..., Any], graph: Graph, query: str) -> None:
    page = soup(get(f"/workflows/{graph.run}?{query}", status=422).text)
    assert len(page.find(id="dialog-page").text) < 500


def test_an_address_of_a_megabyte_is_refused(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get(f"/workflows/{graph.run}?step={'7' * 1_000_000}", status=414).text)
    assert "longer than any we make" in words(page.find(id="dialog-page"))
    assert len(page.text) < 5_000


@pytest.mark.parametrize("path", ["0", "99", "x", "9" * 30])
def test_a_run_that_does_not_exist_is_not_found(get: Callable[..., Any], path: str) -> None:
    assert "There is no workflow" in get(f"/workflows/{path}", status=404).text


@pytest.mark.parametrize("query", ["state=x", "name=%00", f"name={'x' * 201}", "before=x"])
def test_a_list_that_cannot_be_read_is_refused(get: Callable[..., Any], query: str) -> None:
    get(f"/workflows?{query}", status=422)


def _in_need(page: Any) -> dict[str, str]:
    return rows(page, "needs") if page.find(id="needs") else {}


def test_runs_that_need_a_person_come_first(get: Callable[..., Any], session: Session) -> None:
    wait = make_job(session, "deferred", task="opsjobs.wait")
    other = make_job(session, "deferred", task="opsjobs.wait")
    make_run(session, {"wait": wait.id}, name="waits_for_a_day")
    make_run(session, {"a": 900_001}, name="in_trouble", trouble="KeyError: 'x'")
    ended = {"state": "failed", "ended_at": ago(hours=1), "ended_by": "step", "failed": 1}
    make_run(session, {"a": 900_002}, name="failed_now", settled=1, ended_by_step="a", **ended)
    ended["ended_at"] = ago(days=2)
    make_run(session, {"a": 900_003}, name="failed_long_ago", settled=1, **ended)
    run = make_run(session, {"wait": other.id}, name="not_told_which")
    make_signal(session, run=run.id)
    session.commit()
    page = soup(get("/workflows").text)
    found = _in_need(page)
    assert [name.split()[0] for name in found] == [
        "in_trouble",
        "not_told_which",
        "waits_for_a_day",
        "failed_now",
    ]
    assert "KeyError" in found["in_trouble 2"]
    assert "ambiguous signal" in found["not_told_which 5"]
    assert "overdue wait" in found["waits_for_a_day 1"]
    assert "a did not finish" in found["failed_now 3"]
    sentence = words(page.select_one("#part > .say"))
    assert sentence.startswith("4 runs need a person : 1 cannot go on")
    # Other pages of the list do not repeat them.
    assert _in_need(soup(get("/workflows?state=failed").text)) == {}


def test_pages_are_walked_by_keys_and_back(get: Callable[..., Any], session: Session) -> None:
    for number in range(60):
        make_run(session, {"a": 900_000 + number}, name=f"flow_{number % 2}")
    session.commit()
    for query, expected in (("", 60), ("?name=flow_1", 30), ("?state=running", 60)):
        page, seen = soup(get(f"/workflows{query}").text), []
        while True:
            seen.append(list(rows(page, "runs")))
            older = page.select_one("#part a[rel=next]")
            if older is None:
                break
            page = soup(get(str(older["href"]).removeprefix("/ops/jobs")).text)
        names = [name for part in seen for name in part]
        assert len(set(names)) == len(names) == expected
        newer = page.select_one("#part a[rel=prev]")
        page = soup(get(str(newer["href"]).removeprefix("/ops/jobs")).text)
        assert list(rows(page, "runs")) == seen[-2]


def test_a_name_and_a_state_together(get: Callable[..., Any], session: Session) -> None:
    ended = {"ended_at": ago(days=3), "ended_by": "finished", "finished": 1, "settled": 1}
    make_run(session, {"a": 900_001}, name="one")
    make_run(session, {"a": 900_002}, name="one", state="finished", **ended)
    make_run(session, {"a": 900_003}, name="two", state="finished", **ended)
    session.commit()
    page = soup(get("/workflows?name=one&state=finished").text)
    assert list(rows(page, "runs")) == ["one 2"]


def test_a_run_that_takes_longer_than_usual_is_marked(
    get: Callable[..., Any], session: Session
) -> None:
    for number in range(3):
        ended = {"ended_by": "finished", "finished": 1, "settled": 1, "state": "finished"}
        began = ago(hours=3)
        ended |= {"created_at": began, "ended_at": began + timedelta(minutes=4)}
        make_run(session, {"a": 900_000 + number}, **ended)
    make_run(session, {"a": 900_009}, created_at=ago(minutes=11))
    session.commit()
    first, *others = rows(soup(get("/workflows").text), "runs").values()
    assert "×2" in first
    assert "4 min 0 s" in first
    assert not [line for line in others if "×" in line]


def test_a_removed_job_stays_in_its_graph(get: Callable[..., Any], session: Session) -> None:
    run = make_run(session, {"a": 900_001})
    session.commit()
    page = soup(get(f"/workflows/{run.id}").text)
    assert "deferred, job deleted" in rows(page, "steps")["a"]
    assert (
        "900001: its job was deleted; the next advance counts the step as failed (lost)"
        in words(page.select_one("[aria-labelledby=step]"))
    )


@pytest.mark.parametrize(
    ("settled", "counts"), [("failed", "failed (lost)"), ("finished", "finished")]
)
def test_a_removed_job_says_how_its_step_counts(
    get: Callable[..., Any], session: Session, settled: str, counts: str
) -> None:
    run = make_run(session, {"a": 900_001})
    session.execute(update(StepRecord).values(settled=settled, settled_at=ago(minutes=1)))
    session.commit()
    page = soup(get(f"/workflows/{run.id}").text)
    said = words(page.select_one("[aria-labelledby=step] dd"))
    assert said == f"900001: its job was deleted; the step counts as {counts}"


def test_a_callback_that_failed_is_told(get: Callable[..., Any], session: Session) -> None:
    ended = {"ended_at": ago(days=3), "ended_by": "finished", "finished": 1, "settled": 1}
    run = make_run(
        session, {"a": 900_001}, state="finished", end_no=1, on_end={"task": "report"}, **ended
    )
    job = make_job(session, "failed", task="report")
    session.add(Callback(of="workflow", of_id=run.id, end_no=1, event="end", job_id=job.id))
    session.commit()
    page = soup(get(f"/workflows/{run.id}").text)
    (told,) = [words(say) for say in page.select(".say") if "callback" in say.text]
    assert told.startswith("The callback of end 1 failed")
    assert f"Job {job.id}" in told
    assert "failed" in rows(page, "callbacks")["1"]


def test_results_and_errors_need_payload_view_on_run_and_job(
    get: Callable[..., Any],
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    access: Access,
) -> None:
    @opsjobs.task(record_output=True, max_attempts=1)
    def fetch(order_id: int) -> dict[str, Any]:
        return {"customer": "Ada Lovelace"}

    flow = opsjobs.workflow("payload", context={"order": "nr-1042"})
    flow.step("fetch", fetch, order_id=1)
    run = flow.start()
    db.session.commit()
    perform_due()
    (job,) = bench.rows("SELECT job_id FROM opsjobs.steps WHERE workflow_id = %s", run.id)
    path = f"/workflows/{run.id}?step={job['job_id']}"
    assert "Ada Lovelace" in get(path).text
    assert "nr-1042" in get(path).text
    access.denied = {("payload.view", f"job/{job['job_id']}")}
    assert "Ada Lovelace" not in get(path).text
    assert "nr-1042" in get(path).text
    access.denied = {("payload.view", f"workflow/{run.id}")}
    assert "Ada Lovelace" not in get(path).text
    assert "nr-1042" not in get(path).text


def test_a_policy_may_deny_one_run(get: Callable[..., Any], graph: Graph, access: Access) -> None:
    access.denied = {("workflows.view", f"workflow/{graph.run}")}
    get(f"/workflows/{graph.run}", status=403)
    get(f"/workflows/0{graph.run}", status=403)
    get("/workflows")


def test_a_map_counts_its_members(
    get: Callable[..., Any], db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    @opsjobs.task(record_output=True, max_attempts=1)
    def give(value: Any) -> Any:
        return value

    @opsjobs.task(max_attempts=1)
    def double(number: int) -> None:
        if number < 0:
            raise ValueError("a negative number")

    flow = opsjobs.workflow("maps")
    numbers = flow.step("numbers", give, value=[1, 2, -3])
    flow.map("double", double, over=numbers.result, as_="number")
    run = flow.start()
    db.session.commit()
    perform_due()
    page = soup(get(f"/workflows/{run.id}").text)
    table = rows(page, "steps")
    assert "2 finished, 1 failed" in table["double"]
    assert len(table) == 5
    says = words(page.select_one("#part .say"))
    assert says.startswith("Failed : the step double[2] failed")
    # In the timeline the members share the row of their map.
    drawn = page.select_one("svg.gantt")
    assert [link.title.text for link in drawn.select("a")] == [
        "numbers: finished",
        "double × 3: failed",
    ]
    assert [bar["data-is"] for bar in drawn.select("g[data-is]")] == ["finished", "failed"]


def test_a_large_run_is_shown_a_hundred_steps_a_page(
    get: Callable[..., Any], db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    @opsjobs.task
    def call() -> None: ...

    task: Task = call
    flow = opsjobs.workflow("large")
    before = flow.step("first", task)
    for number in range(1_500):
        flow.step(f"step_{number}", task, after=before)
    run = flow.start()
    db.session.commit()
    page = soup(get(f"/workflows/{run.id}").text)
    assert len(rows(page, "steps")) == 100
    page = soup(get(f"/workflows/{run.id}?page=16").text)
    assert list(rows(page, "steps")) == ["step_1499"]
    assert "page 16 of 16" in words(page)


def test_the_list_finds_what_holds_a_large_run_up(get: Callable[..., Any], bench: Bench) -> None:
    """The wait stands behind a thousand steps that were canceled because `a` failed."""
    behind = [f"b_{number}" for number in range(1_001)]
    names = " ".join(["a", *behind, "paid"])
    edges = [f"a {name}" for name in behind]
    graph = Graph.make(bench.connection, names, edges, waits={"paid": PAYMENT}, on_end=None)
    graph.end("a", "failed")
    settle_all(bench.connection)
    (line,) = rows(soup(get("/workflows").text), "runs").values()
    assert "paid has waited for the signal payment" in line


def test_the_graph_and_the_timeline_link_each_step(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get(f"/workflows/{graph.run}?step={graph.ids['b']}").text)
    nodes = {node.title.text: node for node in page.select("svg.dag a.node")}
    assert list(nodes) == [
        "a: failed",
        "d: available",
        "paid: deferred, waits for a signal",
        "b: canceled",
    ]
    assert [title for title in nodes if nodes[title].has_attr("aria-current")] == ["b: canceled"]
    (chosen,) = soup(get(str(nodes["d: available"]["href"]).removeprefix("/ops/jobs")).text).select(
        "#step"
    )
    assert chosen.text == "d"
    assert len(page.select("svg.gantt a")) == 4


def test_the_timeline_draws_attempts(
    get: Callable[..., Any], db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    @opsjobs.task(max_attempts=3, backoff=0)
    def fail() -> None:
        raise ValueError("no")

    flow = opsjobs.workflow("tried")
    flow.step("fail", fail)
    run = flow.start()
    db.session.commit()
    perform_due()
    drawn = soup(get(f"/workflows/{run.id}").text).select_one("svg.gantt")
    states = [bar["data-is"] for bar in drawn.select("g[data-is]")]
    assert states == ["retryable", "retryable", "failed"]
    assert not [text for text in drawn.select("text") if text.text.endswith("ms")]


def test_beside_a_short_row_of_the_timeline_stands_how_long_it_took(
    get: Callable[..., Any], session: Session
) -> None:
    began = ago(hours=1)
    times = {"created_at": began, "started_at": began, "ended_at": began + timedelta(seconds=2)}
    job = make_job(session, "finished", **times)
    run = make_run(session, {"short": job.id}, created_at=began)
    session.execute(update(StepRecord).values(released_at=began))
    session.commit()
    drawn = soup(get(f"/workflows/{run.id}").text).select_one("svg.gantt")
    assert "2.0 s" in [text.text for text in drawn.select("text")]


def test_the_picture_of_a_run_that_goes_on_stays_the_same_for_some_seconds(
    get: Callable[..., Any], graph: Graph
) -> None:
    first = get(f"/workflows/{graph.run}/live")
    again = get(
        f"/workflows/{graph.run}/live", status=304, headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.data == b""


def test_signals_are_listed_with_outcome_and_duplicates(
    get: Callable[..., Any], session: Session, access: Access
) -> None:
    wait = make_job(session, "finished", task="opsjobs.wait")
    run = make_run(session, {"wait": wait.id})
    taken = {"outcome": "taken", "taken_by": wait.id, "taken_at": ago(minutes=1)}
    payload = {"amount": 99042817}
    repeated = {"duplicates": 3, "last_duplicate_at": ago(seconds=30)}
    make_signal(session, payload=payload, **repeated, **taken)
    make_signal(session, name="refund", key="order-7", outcome="late", payload=None)
    session.commit()
    page = soup(get("/signals").text)
    late, first = [words(row) for row in page.select("tbody tr")]
    assert late.startswith("refund 2 late order-7")
    assert "payment 1 taken order-1042" in first
    assert f"wait of run {run.id}" in first
    assert "3 times" in first
    assert '{"amount": 99042817}' in first
    (row,) = soup(get("/signals?outcome=late").text).select("tbody tr")
    assert words(row) == late
    access.held -= {"payload.view"}
    hidden = get("/signals").text
    assert "99042817" not in hidden
    assert "amount" not in hidden
    get("/signals?outcome=x", status=422)
    get("/signals?before=x", status=422)


@pytest.mark.parametrize("name", ["\N{PACKAGE}" * 200, "../../x"])
def test_any_name_is_shown_and_its_links_lead_on(
    name: str, get: Callable[..., Any], opsjobs: OpsJobs, db: SQLAlchemy, note: Task
) -> None:
    """As the name of a workflow, of steps, of a signal, of its key and of a batch."""
    flow = opsjobs.workflow(name)
    flow.step(name, note, after=flow.wait(f"{name[:-1]}w", signal=name, key=name))
    run = flow.start()
    with opsjobs.batch(name):
        pass
    db.session.commit()
    perform_due()
    opsjobs.signal(name, key=name, run=run.id)
    db.session.commit()
    (row,) = soup(get("/workflows").text).select("#part tbody tr")
    assert name[:8] in words(row)
    page = soup(get(f"/workflows/{run.id}").text)
    assert name in page.find("nav", class_="crumbs").text
    (of_name,) = {str(link["href"]) for link in page.select(".crumbs a[href*='name=']")}
    assert len(soup(get(of_name.removeprefix("/ops/jobs")).text).select("#part tbody tr")) == 1
    steps = {str(link["href"]) for link in page.select("a[href*='step=']")}
    assert len(steps) >= 2
    for link in steps:
        get(link.removeprefix("/ops/jobs").partition("#")[0])
    assert name[:8] in words(soup(get("/signals").text).select_one("tbody tr"))
    assert name[:8] in words(soup(get("/batches").text).select_one("tbody tr"))


def test_an_ambiguous_signal_leads_to_where_its_wait_is_chosen(
    get: Callable[..., Any], session: Session
) -> None:
    run = make_run(session, {"wait": make_job(session, "deferred", task="opsjobs.wait").id})
    make_signal(session)
    make_signal(session, run=run.id)
    session.commit()
    links = soup(get("/signals").text).select("tbody tr a")
    assert {words(link) for link in links} == {"Choose its wait"}
    of_run, of_all = (str(link["href"]).removeprefix("/ops/jobs") for link in links)
    assert of_run == f"/workflows/{run.id}"
    assert f"fulfil_order {run.id}" in words(soup(get(of_all).text).find(id="part"))


def test_pages_of_signals_are_walked_by_keys(get: Callable[..., Any], session: Session) -> None:
    for number in range(60):
        make_signal(session, key=f"order-{number}", outcome=("late", "early")[number % 2])
    session.commit()
    for query, expected in (("", 60), ("?outcome=late", 30)):
        page, seen = soup(get(f"/signals{query}").text), []
        while True:
            seen += [words(row.th) for row in page.select("tbody tr")]
            older = page.select_one("#part a[rel=next]")
            if older is None:
                break
            page = soup(get(str(older["href"]).removeprefix("/ops/jobs")).text)
        assert len(set(seen)) == len(seen) == expected


def test_the_page_of_a_run_has_its_legal_actions(get: Callable[..., Any], graph: Graph) -> None:
    page = soup(get(f"/workflows/{graph.run}?step={graph.ids['paid']}").text)
    buttons = [words(button) for button in page.select("#part .head .actions button")]
    assert buttons == ["Cancel…", "Retry…"]
    assert page.find(id="signal-title")
    assert page.find(id="skip-title")
    page = soup(get(f"/workflows/{graph.run}?step={graph.ids['d']}").text)
    assert not page.find(id="signal-title")


def test_a_job_links_its_run_and_a_callback_the_run_it_reports(
    get: Callable[..., Any], graph: Graph, session: Session
) -> None:
    job = make_job(session, "finished", task="report")
    session.add(Callback(of="workflow", of_id=graph.run, end_no=2, event="end", job_id=job.id))
    session.commit()
    step = soup(get(f"/jobs/{graph.ids['b']}").text)
    assert f"step b of run {graph.run} , which is running" in words(step.find("aside"))
    callback = soup(get(f"/jobs/{job.id}").text)
    assert f"end 2 of workflow run {graph.run}" in words(callback.find("aside"))


def _make_stuck_runs(session: Session) -> None:
    """One run of each kind that needs a person, and two open waits for one signal."""
    make_run(session, {"a": 900_001}, trouble="KeyError: 'x'")
    old = make_job(session, "deferred", task="opsjobs.wait")
    make_run(session, {"wait": old.id})
    wait = make_job(session, "deferred", task="opsjobs.wait")
    run = make_run(session, {"wait": wait.id})
    make_signal(session, run=run.id)
    ended = {"state": "failed", "ended_at": ago(hours=1), "ended_by": "step", "failed": 1}
    make_run(session, {"a": 900_002}, settled=1, ended_by_step="a", **ended)
    session.commit()


def test_the_navigation_counts_what_needs_a_person(
    get: Callable[..., Any], session: Session
) -> None:
    _make_stuck_runs(session)
    badge = soup(get("/workflows").text).find(id="badge-workflows")
    assert words(badge) == (
        "4 runs need a person: 1 cannot go on, 1 ambiguous signal, 1 overdue wait, 1 failed"
    )


def test_the_overview_knows_runs_that_cannot_go_on_by_themselves(
    get: Callable[..., Any], session: Session, access: Access
) -> None:
    _make_stuck_runs(session)
    page = soup(get("").text)
    text = words(page.find(id="part"))
    assert "3 runs of workflows need a person." in text
    for run, why in ((1, "cannot go on"), (3, "ambiguous signal"), (2, "overdue wait")):
        (link,) = page.select(f"#part a[href='/ops/jobs/workflows/{run}']")
        assert why in words(link.find_parent("li")), run
    make_job(session, "failed")
    session.commit()
    assert "3 runs of workflows need a person. 1 failed job waits for a decision." in words(
        soup(get("").text).find(id="part")
    )
    access.held -= {"workflows.view"}
    assert "/ops/jobs/workflows/1" not in get("").text


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("workflow/7", "/workflows/7"),
        ("batch/7", "/batches/7"),
        ("fulfil_order", "/workflows?name=fulfil_order"),
        ("import_prices", "/batches/1"),
        ("workflow/x", None),
        ("batch/", None),
    ],
)
def test_the_jump_box_knows_workflows_and_batches(
    client: FlaskClient, session: Session, word: str, place: str | None
) -> None:
    make_run(session, {"a": 900_001})
    make_batch(session)
    session.commit()
    answer = client.get(f"/ops/jobs/jump?to={word}")
    if place is None:
        assert answer.status_code == 404
        assert "workflow/7 or batch/7" in soup(answer.text).text
    else:
        assert (answer.status_code, answer.location) == (303, f"/ops/jobs{place}")


def test_a_name_that_nobody_may_see_is_no_place(
    client: FlaskClient, session: Session, access: Access
) -> None:
    make_run(session, {"a": 900_001})
    session.commit()
    assert client.get("/ops/jobs/jobs?q=fulfil_order").location == (
        "/ops/jobs/jobs?q=workflow:fulfil_order"
    )
    access.held -= {"workflows.view"}
    assert client.get("/ops/jobs/jump?to=fulfil_order").status_code == 404


@pytest.fixture
def compared(db: SQLAlchemy, opsjobs: OpsJobs) -> tuple[int, int]:
    """Two runs of one name: all steps of the first finished; of the second, of another shape, one failed."""

    @opsjobs.task(record_output=True, max_attempts=1)
    def give(value: Any) -> Any:
        if value == "bad":
            raise ValueError("no")
        return value

    runs = []
    for value, last in (("good", "notify"), ("bad", "tell")):
        flow = opsjobs.workflow("compared")
        numbers = flow.step("numbers", give, value=[1, 2])
        flow.map("double", give, over=numbers.result, as_="value")
        flow.step("check", give, value=value)
        flow.step(last, give, value=1)
        runs.append(flow.start().id)
        db.session.commit()
        perform_due()
    return runs[0], runs[1]


def test_two_runs_are_compared_step_by_step(
    get: Callable[..., Any], compared: tuple[int, int]
) -> None:
    good, bad = compared
    page = soup(get(f"/workflows/{bad}/compare").text)  # with the last good one
    assert words(page.h1) == f"compared {bad} compared with {good}"
    assert words(page.select_one("main .say")).startswith("3 of 5 steps differ")
    assert f"1 only in run {bad}, 1 only in run {good}" in words(page.select_one("main .say"))
    table = rows(page, "steps")
    assert list(table) == ["the whole run", "numbers", "double", "check", "tell", "notify"]
    assert "failed" in table["check"]
    assert f"not in {good}" in table["tell"]
    assert f"not in {bad}" in table["notify"]
    differ = soup(get(f"/workflows/{bad}/compare?with={good}&show=differs").text)
    assert list(rows(differ, "steps")) == ["the whole run", "check", "tell", "notify"]
    # The page of the run and the list link it.
    beside = soup(get(f"/workflows/{bad}").text)
    assert list(rows(beside, "good")) == ["check", "tell", "notify"]
    (link,) = [a for a in beside.select("#part aside a") if a.text == "Compare all steps"]
    assert str(link["href"]).endswith(f"/workflows/{bad}/compare?with={good}")
    # Of the good run there is no other good one.
    assert soup(get(f"/workflows/{good}").text).find(id="good") is None
    assert "None of the last 200 runs" in get(f"/workflows/{good}/compare").text


@pytest.mark.parametrize(
    ("query", "status"),
    [("with=x", 404), ("with=99", 404), ("show=x", 422), ("page=0", 422), ("page=2", 422)],
)
def test_a_comparison_that_cannot_be_read_is_refused(
    get: Callable[..., Any], compared: tuple[int, int], query: str, status: int
) -> None:
    get(f"/workflows/{compared[1]}/compare?{query}", status=status)


def test_a_denied_run_is_not_compared(
    get: Callable[..., Any], compared: tuple[int, int], access: Access
) -> None:
    good, bad = compared
    access.denied = {("workflows.view", f"workflow/{good}")}
    get(f"/workflows/{bad}/compare?with={good}", status=403)
    assert "None of the last 200 runs" in get(f"/workflows/{bad}/compare").text
    assert soup(get(f"/workflows/{bad}").text).find(id="good") is None


def test_a_step_that_took_twice_as_long_is_marked_in_the_slower_run(
    get: Callable[..., Any], session: Session
) -> None:
    began = ago(hours=1)
    for seconds in (4, 9):
        job = make_job(
            session, "finished", started_at=began, ended_at=began + timedelta(seconds=seconds)
        )
        ended = {"ended_by": "finished", "finished": 1, "settled": 1, "state": "finished"}
        make_run(session, {"slow": job.id}, created_at=began, ended_at=ago(minutes=1), **ended)
    session.execute(update(StepRecord).values(released_at=began))
    session.commit()
    for path in ("/workflows/1/compare?with=2", "/workflows/2/compare?with=1"):
        row = soup(get(path).text).find(id="steps").find_parent("section").select("tbody tr")[1]
        assert [words(chip) for chip in row.select(".chip[data-is=late]")] == ["9.0 s"]
