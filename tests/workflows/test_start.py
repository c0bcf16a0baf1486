"""What `start` writes, and in whose transaction."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from flask_opsjobs import Limit, OpsJobs, Task, Unique, Workflow, WrongSession, previous, signals
from flask_opsjobs.host import DueLane, Host
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench
from tests.support.runs import count_rows, edges, read, steps_of


def test_a_run_is_written_with_its_jobs_steps_and_edges(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.workflow("sync", context={"account_id": 42, "note": "back\\slash\n"})
    fetched = flow.step("fetch", fetch, account_id=42)
    billing = flow.step("billing", bill.options(queue="billing"), customer=fetched.result["id"])
    flow.wait("paid", signal="payment", key="order-42", timeout=60, after=[billing])
    flow.step("tidy", bill, note="back\\slash\n", after=["billing"], on_failure="continue")
    run = flow.start()
    assert set(count_rows(host).values()) == {0}
    db.session.commit()
    assert (run.steps, run.conflict) == (4, False)
    steps = steps_of(host, run.id)
    assert [
        (s["name"], s["state"], s["pending"], s["queue"], s["kind"]) for s in steps.values()
    ] == [
        ("fetch", "available", 0, "fetch", "job"),
        ("billing", "deferred", 1, "billing", "job"),
        ("paid", "deferred", 1, "default", "wait"),
        ("tidy", "deferred", 1, "default", "job"),
    ]
    first = steps["fetch"]
    assert first["released_at"] == first["created_at"] == first["due_at"]
    assert {step["released_at"] for name, step in steps.items() if name != "fetch"} == {None}
    assert {step["due_at"] for step in steps.values()} == {first["created_at"]}
    assert [step["position"] for step in steps.values()] == [0, 1, 2, 3]
    taken = {"customer": {"step": first["id"], "path": ["id"]}}
    assert [step["takes"] for step in steps.values()] == [None, taken, None, None]
    assert [step["args"] for step in steps.values()] == [
        {"account_id": 42},
        {},
        {},
        {"note": "back\\slash\n"},
    ]
    paid = steps["paid"]
    assert (paid["task"], paid["signals"], paid["key"]) == ("opsjobs.wait", ["payment"], "order-42")
    assert (paid["wait_seconds"], paid["opened_at"], paid["max_attempts"]) == (60, None, 1)
    assert edges(host) == {
        ("fetch", "billing", "cancel"),
        ("billing", "paid", "cancel"),
        ("billing", "tidy", "continue"),
    }
    (row,) = read(host, "SELECT * FROM opsjobs.workflows")
    assert (row["name"], row["state"], row["steps"], row["settled"]) == ("sync", "running", 4, 0)
    assert row["context"] == {"account_id": 42, "note": "back\\slash\n"}
    assert (row["created_at"], row["started_at"]) == (first["created_at"], None)
    assert checks(bench.connection) == []


def test_a_run_comes_and_goes_with_the_hosts_transaction(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    flow = opsjobs.chain("one", fetch)
    flow.start()
    db.session.rollback()
    assert set(count_rows(host).values()) == {0}
    nested = db.session.begin_nested()
    flow.start()
    nested.rollback()
    kept = flow.start()
    db.session.commit()
    assert [row["id"] for row in read(host, "SELECT id FROM opsjobs.workflows")] == [kept.id]


def test_the_session_may_be_another_one_of_the_same_database(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    engine = create_engine(host.engine.url)
    with Session(engine) as session:
        opsjobs.chain("one", fetch).start(session=session)
        db.session.commit()
        assert count_rows(host)["workflows"] == 0
        session.commit()
    engine.dispose()
    assert count_rows(host)["workflows"] == 1
    with (
        Session(create_engine("postgresql+psycopg://elsewhere/db")) as session,
        pytest.raises(WrongSession),
    ):
        opsjobs.chain("one", fetch).start(session=session)


def test_a_workflow_may_be_started_again(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.chain("twice", fetch, bill.s(customer=previous["id"]))
    first, second = flow.start(), flow.start()
    db.session.commit()
    assert first.id != second.id
    ours, theirs = steps_of(host, first.id), steps_of(host, second.id)
    assert theirs["bill"]["takes"]["customer"]["step"] == theirs["fetch"]["id"]
    assert ours["bill"]["takes"]["customer"]["step"] == ours["fetch"]["id"]
    shapes = read(host, "SELECT DISTINCT shape FROM opsjobs.workflows")
    assert len(shapes) == 1


def test_the_shape_is_of_names_tasks_and_edges(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    def start(*names: str, after: object = (), task: Task = bill, **arguments: Any) -> bytes:
        flow = opsjobs.workflow("shape")
        for name in names[:-1]:
            flow.step(name, bill)
        flow.step(names[-1], task, after=after, **arguments)
        id = flow.start().id
        statement = text("SELECT shape FROM opsjobs.workflows WHERE id = :id")
        return bytes(db.session.execute(statement, {"id": id}).scalar_one())

    plain = start("a", "b")
    assert plain == start("a", "b", note="other")
    others = [start("a", "c"), start("a", "b", after="a"), start("a", "b", task=fetch), start("b")]
    assert len({plain, *others}) == 5


def test_steps_have_the_options_of_their_calls(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    flow = opsjobs.workflow("options")
    slow = bill.options(
        queue="slow",
        priority=1,
        max_attempts=2,
        timeout=9,
        deadline=timedelta(hours=1),
        delay=timedelta(minutes=5),
        tags=['a"b', "c\\d"],
        meta={"tab": "\t"},
    )
    flow.step("first", slow)
    flow.step("second", slow, after="first", may_fail=True)
    flow.step("third", bill, after="second")
    run = flow.start()
    db.session.commit()
    steps = steps_of(host, run.id)
    for name in ("first", "second"):
        step = steps[name]
        assert (step["queue"], step["lane"], step["priority"]) == ("slow", "slow", 1)
        assert (step["max_attempts"], step["timeout_seconds"]) == (2, 9)
        assert (step["tags"], step["meta"]) == (['a"b', "c\\d"], {"tab": "\t"})
        assert (step["delay_seconds"], step["deadline_seconds"]) == (300, 3600)
    first, second = steps["first"], steps["second"]
    assert first["state"] == "scheduled"
    assert first["due_at"] - first["created_at"] == timedelta(minutes=5)
    assert first["deadline_at"] - first["due_at"] == timedelta(hours=1)
    # The time of a step that waits counts from its release.
    assert (second["state"], second["deadline_at"]) == ("deferred", None)
    assert second["due_at"] == second["created_at"]
    assert (second["may_fail"], first["may_fail"]) == (True, False)
    assert edges(host) == {("first", "second", "cancel"), ("second", "third", "continue")}


def test_a_span_is_as_long_as_it_says_where_the_clocks_of_the_database_change_before_its_end(
    db: SQLAlchemy, opsjobs: OpsJobs, bill: Task
) -> None:
    now = datetime.now(ZoneInfo("Europe/Berlin"))
    span = next(
        span
        for span in (timedelta(days=days) for days in range(1, 366))
        if (now + span).utcoffset() != now.utcoffset()
    )
    by_customer = opsjobs.task(name="once", unique=Unique(by=["customer"], within=span))(take)
    hour = timedelta(hours=1)
    late: dict[str, Any] = {"delay": span, "deadline": hour}
    until: dict[str, Any] = {"deadline": span}
    flow = opsjobs.workflow("delayed")
    flow.step("late", bill.options(**late))
    flow.step("until", bill.options(**until))
    flow.step("once", by_customer, customer=1)
    db.session.execute(text("SET LOCAL TimeZone = 'Europe/Berlin'"))
    flow.start()
    for options in (late, until):
        bill.options(**options).enqueue()
        bill.options(**options).enqueue_many([{}])
    by_customer.enqueue(customer=2)
    by_customer.options(**late).enqueue(customer=3)
    by_customer.enqueue_many([{"customer": 4}])

    def spans(statement: str) -> list[Any]:
        return [tuple(row) for row in db.session.execute(text(statement))]

    jobs = "SELECT due_at - created_at, deadline_at - due_at FROM opsjobs.jobs WHERE deadline_at > now()"
    assert sorted(spans(jobs)) == [(timedelta(0), span)] * 3 + [(span, hour)] * 4
    assert spans("SELECT expires_at - created_at FROM opsjobs.unique_locks") == [(span,)] * 4


def take(customer: int) -> None:
    """Does nothing."""


def test_enqueued_jobs_are_counted_per_queue(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.workflow("counts")
    for number in range(3):
        flow.step(f"fetch {number}", fetch)
    flow.wait("paid", signal="payment")
    flow.step("bill", bill.options(queue="billing"))
    flow.start()
    db.session.commit()
    counted = read(host, "SELECT queue, enqueued FROM opsjobs.job_count_deltas")
    assert {row["queue"]: row["enqueued"] for row in counted} == {
        "fetch": 3,
        "default": 1,
        "billing": 1,
    }


def test_after_takes_steps_names_groups_and_lists_and_each_edge_is_one(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    flow = opsjobs.workflow("after")
    a = flow.step("a", bill)
    b = flow.step("b", bill, after=None)
    flow.step("one", bill, after=a)
    flow.step("all", bill, after=[a, ("b", [{"a"}]), b], customer=a.result)
    flow.step("later", bill, after=(name for name in ("z", "a")))
    flow.step("z", bill)
    run = flow.start()
    db.session.commit()
    assert {(source, target) for source, target, _ in edges(host)} == {
        ("a", "one"),
        ("a", "all"),
        ("b", "all"),
        ("z", "later"),
        ("a", "later"),
    }
    # Ids are given in an order of the graph, and otherwise as the steps were built.
    assert list(steps_of(host, run.id)) == ["a", "b", "one", "all", "z", "later"]


def test_an_added_workflow_stands_under_its_prefix(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    inner = opsjobs.workflow("billing", context={"account_id": 42})
    got = inner.step("get", fetch)
    inner.step("bill", bill, customer=got.result["id"])
    inner.step("tell", bill, after="get", on_failure="continue")
    flow = opsjobs.workflow("outer", context={"account_id": 42, "more": 1})
    begin = flow.step("begin", bill)
    one = flow.add("one", inner, after=begin)
    two = flow.add("two", inner, after=one)
    inner.step("too late", bill)
    flow.step("end", bill, after=two, customer=one["bill"].result)
    run = flow.start()
    db.session.commit()
    assert (list(one), len(two)) == (["get", "bill", "tell"], 3)
    assert edges(host) == {
        ("begin", "one.get", "cancel"),
        ("one.get", "one.bill", "cancel"),
        ("one.get", "one.tell", "continue"),
        ("one.bill", "two.get", "cancel"),
        ("one.tell", "two.get", "cancel"),
        ("two.get", "two.bill", "cancel"),
        ("two.get", "two.tell", "continue"),
        ("two.bill", "end", "cancel"),
        ("two.tell", "end", "cancel"),
        ("one.bill", "end", "cancel"),
    }
    steps = steps_of(host, run.id)
    assert steps["two.bill"]["takes"]["customer"]["step"] == steps["two.get"]["id"]
    assert steps["one.bill"]["takes"]["customer"]["step"] == steps["one.get"]["id"]


def test_an_added_workflow_may_take_results_of_the_workflow_around_it(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.workflow("outer")
    got = flow.step("get", fetch)
    inner = opsjobs.workflow("inner")
    inner.step("bill", bill, customer=got.result["id"])
    flow.add("nested.deep", inner, after=flow.step("first", bill))
    flow.start()
    db.session.commit()
    assert edges(host) == {
        ("get", "nested.deep.bill", "cancel"),
        ("first", "nested.deep.bill", "cancel"),
    }


def test_a_workflow_may_be_added_to_itself(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    flow = opsjobs.workflow("self")
    flow.step("a", bill)
    flow.add("again", flow, after="a")
    flow.start()
    db.session.commit()
    assert edges(host) == {("a", "again.a", "cancel")}


def test_a_chain_is_a_workflow(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    flow = opsjobs.chain(
        "nightly",
        fetch.s(7),
        bill.options(queue="billing").s(customer=previous["id"], note="x"),
        bill,
        bill.s(previous),
        context={"day": 1},
    )
    assert isinstance(flow, Workflow)
    run = flow.start()
    db.session.commit()
    steps = steps_of(host, run.id)
    assert list(steps) == ["fetch", "bill", "bill-2", "bill-3"]
    assert [step["queue"] for step in steps.values()] == ["fetch", "billing", "default", "default"]
    assert edges(host) == {
        ("fetch", "bill", "cancel"),
        ("bill", "bill-2", "cancel"),
        ("bill-2", "bill-3", "cancel"),
    }
    assert steps["fetch"]["args"] == {"account_id": 7}
    assert steps["bill"]["takes"]["customer"] == {"step": steps["fetch"]["id"], "path": ["id"]}
    assert steps["bill-2"]["takes"] is None
    assert steps["bill-3"]["takes"]["customer"] == {"step": steps["bill-2"]["id"], "path": []}


def test_links_of_one_task_are_numbered(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    @opsjobs.task(name="bill-2")
    def second() -> None: ...

    run = opsjobs.chain("numbers", bill, second, bill, second, bill).start()
    db.session.commit()
    assert list(steps_of(host, run.id)) == ["bill", "bill-2", "bill-3", "bill-2-2", "bill-4"]
    assert opsjobs.chain("long", *[bill] * 3_000).start().steps == 3_000


def test_a_map_stores_the_call_of_its_elements(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    @opsjobs.task(
        record_output=True, queue="images", limit=Limit("disk", concurrency=2, partition="picture")
    )
    def resize(picture: str, width: int, height: int = 1) -> int:
        return width * height

    @opsjobs.task
    def add_up(sizes: list[int]) -> None: ...

    flow = opsjobs.workflow("maps")
    got = flow.step("get", fetch)
    call = resize.options(delay=60, priority=2, deadline=timedelta(hours=1), max_attempts=7)
    pictures, width = got.result["pictures"], got.result["id"]
    sizes = flow.map("resize", call, over=pictures, as_="picture", width=width, height=3)
    flow.step("add up", add_up, sizes=sizes.results)
    run = flow.start()
    db.session.commit()
    steps = steps_of(host, run.id)
    row, source = steps["resize"], steps["get"]["id"]
    assert (row["task"], row["kind"], row["queue"], row["lane"]) == (
        "opsjobs.map",
        "map",
        "images",
        "images",
    )
    # The delay is the map's; the deadline is that of each element, from the moment when it is added.
    assert (row["delay_seconds"], row["deadline_seconds"], row["priority"]) == (60, None, 2)
    assert row["takes"] == {
        "over": {"step": source, "path": ["pictures"]},
        "args.width": {"step": source, "path": ["id"]},
    }
    args = row["args"]
    assert (args["task"], args["as_"], args["args"]) == ("resize", "picture", {"height": 3})
    options = args["options"]
    assert (options["max_attempts"], options["deadline_seconds"]) == (7, 3600)
    assert (options["queue"], options["priority"]) == ("images", 2)
    assert steps["add up"]["takes"] == {"sizes": {"step": row["id"], "path": [], "all": True}}


def test_a_limited_step_gets_its_lane(db: SQLAlchemy, opsjobs: OpsJobs, host: Host) -> None:
    @opsjobs.task(
        limit=Limit(
            "crm", concurrency=1, partition="account", weight=lambda _: 1, when_full="reject"
        ),
        record_output=True,
    )
    def sync(account: int) -> None: ...

    flow = opsjobs.workflow("limits")
    first = flow.step("first", sync, account=7)
    flow.step("second", sync, account=8, after=first)
    run = flow.start()
    db.session.commit()
    steps = steps_of(host, run.id)
    assert [(s["lane"], s["limiter"], s["partition"], s["weight"]) for s in steps.values()] == [
        ("default|crm|7", "crm", "7", 1),
        ("default|crm|8", "crm", "8", 1),
    ]


def test_a_result_may_stand_beside_what_limits_a_step_or_makes_it_unique(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    @opsjobs.task(
        limit=Limit("crm", concurrency=9, partition="account", weight="units"),
        unique=Unique(by=["account"], until="ended"),
    )
    def sync(account: int, customer: int, units: int = 2) -> None: ...

    flow = opsjobs.workflow("beside")
    got = flow.step("get", fetch)
    flow.step("sync", sync, account=7, customer=got.result["id"])
    run = flow.start()
    held = sync.enqueue(7, 3)
    db.session.commit()
    step = steps_of(host, run.id)["sync"]
    assert (step["partition"], step["weight"], step["unique_until"]) == ("7", 2, "ended")
    assert (held.id, held.conflict) == (step["id"], True)


def test_uniqueness_is_taken_at_start(db: SQLAlchemy, opsjobs: OpsJobs, host: Host) -> None:
    @opsjobs.task(unique=Unique(within=timedelta(hours=1)))
    def sync(account: int) -> None: ...

    flow = opsjobs.workflow("unique")
    flow.step("first", sync, account=1)
    flow.step("second", sync, account=2, after="first")
    run = flow.start()
    again = sync.enqueue(2)
    db.session.commit()
    steps = steps_of(host, run.id)
    assert (again.id, again.conflict, again.state) == (steps["second"]["id"], True, "deferred")
    locks = read(host, "SELECT * FROM opsjobs.unique_locks ORDER BY job_id")
    assert [lock["job_id"] for lock in locks] == [steps["first"]["id"], steps["second"]["id"]]
    for lock, step in zip(locks, steps.values(), strict=True):
        assert (lock["until"], lock["key"]) == ("within", step["unique_key"])
        assert lock["expires_at"] - step["created_at"] == timedelta(hours=1)


def test_an_expired_lock_is_taken_over(db: SQLAlchemy, opsjobs: OpsJobs, host: Host) -> None:
    @opsjobs.task(unique=Unique(within=timedelta(microseconds=1)))
    def sync(account: int) -> None: ...

    sync.enqueue(1)
    db.session.commit()
    run = opsjobs.chain("unique", sync.s(1)).start()
    db.session.commit()
    (lock,) = read(host, "SELECT job_id FROM opsjobs.unique_locks")
    assert lock["job_id"] == steps_of(host, run.id)["sync"]["id"]


def test_a_lock_is_taken_under_every_secret(make_app: Callable[..., Flask]) -> None:
    opsjobs = OpsJobs()

    @opsjobs.task(unique=Unique(until="ended"))
    def sync(account: int) -> None: ...

    app = make_app(opsjobs=opsjobs, SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old", "older"])
    with app.app_context():
        session = app.extensions["sqlalchemy"].session
        run = opsjobs.chain("unique", sync.s(1)).start()
        session.commit()
        host = opsjobs.host
        locks = read(
            host, "SELECT DISTINCT job_id, count(*) OVER () AS number FROM opsjobs.unique_locks"
        )
        assert locks == [{"job_id": steps_of(host, run.id)["sync"]["id"], "number": 3}]
        session.remove()


def test_what_is_due_is_dispatched_after_the_commit(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    class Dispatcher:
        def __init__(self) -> None:
            self.pushed: list[Any] = []

        def push(self, notes: Any) -> None:
            self.pushed += notes

        def has_room(self, queue: str) -> bool:
            raise AssertionError("no step is inserted as queued")

    host.dispatcher = dispatcher = Dispatcher()
    flow = opsjobs.workflow("dispatched")
    flow.step("a", fetch)
    flow.step("b", fetch)
    flow.step("c", bill.options(delay=60))
    flow.step("d", bill, after="a")
    flow.start()
    assert dispatcher.pushed == []
    db.session.commit()
    assert dispatcher.pushed == [DueLane("fetch", "fetch")]


def test_receivers_hear_of_each_job_that_calls_a_task(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, bill: Task
) -> None:
    heard: list[tuple[Any, str | None]] = []

    def receive(sender: Any, enqueued: Any) -> None:
        heard.append((sender, enqueued.state))

    flow = opsjobs.workflow("heard")
    got = flow.step("a", fetch)
    flow.step("b", bill, customer=got.result["id"])
    flow.wait("c", signal="c")
    with signals.job_enqueued.connected_to(receive):
        flow.start()
    assert heard == [(fetch, "available"), (bill, "deferred")]


def test_the_deadline_of_a_run_counts_from_its_start(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    opsjobs.chain("late", fetch).start(deadline=timedelta(hours=2))
    opsjobs.chain("late", fetch).start(deadline=90)
    opsjobs.chain("late", fetch).start()
    db.session.commit()
    rows = read(host, "SELECT deadline_at - created_at AS span FROM opsjobs.workflows ORDER BY id")
    assert [row["span"] for row in rows] == [timedelta(hours=2), timedelta(seconds=90), None]


def test_a_callback_is_stored_with_what_it_needs(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    @opsjobs.task(
        queue="reports",
        timeout=5,
        unique=Unique(until="ended"),
        limit=Limit("mail", concurrency=3, weight=2),
        deadline=timedelta(minutes=1),
    )
    def report(workflow_id: int, end_no: int, note: str = "") -> None: ...

    opsjobs.chain("told", fetch, on_end=report.options(priority=0)).start()
    db.session.commit()
    (row,) = read(host, "SELECT on_end FROM opsjobs.workflows")
    assert row["on_end"] == {
        "task": "report",
        "queue": "reports",
        "lane": "reports|mail|",
        "priority": 0,
        "max_attempts": 5,
        "timeout_seconds": 5,
        "deadline_seconds": 60,
        "limiter": "mail",
        "partition": "",
        "weight": 2,
        "tags": [],
        "meta": {},
        "accepts": ["workflow_id", "end_no"],
    }


# --- one open run per key


def test_unique_finds_the_open_run_and_writes_nothing(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    flow = opsjobs.chain("sync", fetch, fetch)
    first = flow.start(unique="account-42")
    again = opsjobs.chain("sync", fetch).start(unique="account-42", deadline=60)
    assert (again.id, again.steps, again.conflict) == (first.id, 2, True)
    # The key is that of this name.
    others = [
        flow.start(unique="account-43"),
        flow.start(),
        opsjobs.chain("other", fetch).start(unique="account-42"),
    ]
    db.session.commit()
    assert [run.conflict for run in others] == [False] * 3
    runs = read(host, "SELECT deadline_at FROM opsjobs.workflows")
    assert runs == [{"deadline_at": None}] * 4
    assert count_rows(host)["jobs"] == 7


@pytest.mark.parametrize("is_savepoint", [False, True])
def test_a_workflow_is_started_again_after_a_rollback(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task, is_savepoint: bool
) -> None:
    flow = opsjobs.chain("sync", fetch, fetch)
    transaction = db.session.begin_nested() if is_savepoint else db.session
    lost = flow.start(unique="account-42")
    transaction.rollback()
    again = flow.start(unique="account-42")
    db.session.commit()
    assert (again.conflict, again.steps, again.id != lost.id) == (False, 2, True)
    perform_due()
    runs = read(host, "SELECT id, state FROM opsjobs.workflows")
    assert runs == [{"id": again.id, "state": "finished"}]


def test_a_key_is_free_when_its_run_has_ended(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, fetch: Task
) -> None:
    flow = opsjobs.chain("sync", fetch)
    first = flow.start(unique="account-42")
    db.session.commit()
    perform_due()
    second = flow.start(unique="account-42")
    assert (second.conflict, second.id > first.id) == (False, True)


# --- it runs


def test_results_are_handed_on_and_the_run_ends(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, fetch: Task
) -> None:
    told: list[Any] = []

    @opsjobs.task(record_output=True)
    def double(number: int) -> int:
        return number * 2

    @opsjobs.task
    def store(number: int, pictures: list[str]) -> None:
        told.append((number, pictures))

    @opsjobs.task
    def report(workflow_id: int, state: str, context: dict[str, Any]) -> None:
        told.append((workflow_id, state, context))

    flow = opsjobs.workflow("all", context={"account": 7}, on_end=report)
    got = flow.step("get", fetch, account_id=21)
    doubled = flow.step("double", double, number=got.result["id"])
    flow.step("store", store, number=doubled.result, pictures=got.result["pictures"])
    run = flow.start()
    db.session.commit()
    perform_due()
    assert told == [(42, ["a", "b", "c"]), (run.id, "finished", {"account": 7})]
    assert checks(bench.connection) == []


# --- size


@pytest.mark.slow
def test_memory_grows_with_the_number_of_steps_only(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    def peak(steps: int) -> float:
        flow = opsjobs.workflow("big")
        before: list[Any] = []
        for number in range(steps):
            before = [*before[-9:], flow.step(f"step {number}", bill, customer=1, after=before)]
        tracemalloc.start()
        flow.start()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        db.session.rollback()
        return most / steps

    peak(10)
    small, large = peak(300), peak(3_000)
    assert large < 1.5 * small


@pytest.mark.slow
def test_the_largest_workflow_starts(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bench: Bench, bill: Task
) -> None:
    flow = opsjobs.workflow("largest")
    before: list[Any] = []
    for number in range(10_000):
        # The first ten have 0 to 9 edges; one step more makes up for these 55.
        before = [*before[-9:], flow.step(f"step {number}", bill, after=before)]
    flow.nodes[-1].after += flow.nodes[:55]
    run = flow.start()
    db.session.commit()
    assert run.steps == 10_000
    rows = count_rows(host)
    assert (rows["jobs"], rows["steps"], rows["edges"]) == (10_000, 10_000, 100_000)
    assert checks(bench.connection) == []
