"""Whole runs, performed: results, maps, waits and what is behind them."""

from __future__ import annotations

from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import Limit, OpsJobs, Task, current_job
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows import expand_map, prepare
from flask_opsjobs.workflows.checks import checks
from tests.support.engine import Bench


@pytest.fixture
def give(opsjobs: OpsJobs) -> Task:
    """A task that returns what it got."""

    @opsjobs.task(record_output=True, max_attempts=1)
    def give(value: Any = None) -> Any:
        return value

    return give


@pytest.fixture
def double(opsjobs: OpsJobs) -> Task:
    """A task that doubles a number, and fails for a negative one."""

    @opsjobs.task(record_output=True, max_attempts=1)
    def double(number: int, plus: int = 0) -> int:
        if number < 0:
            raise ValueError("a negative number")
        return 2 * number + plus

    return double


def outputs(bench: Bench, run: int) -> dict[str, Any]:
    """What each step that finished returned, by name."""
    rows = bench.rows(
        "SELECT s.name, o.value FROM opsjobs.steps s JOIN opsjobs.outputs o USING (job_id)"
        " WHERE s.workflow_id = %s ORDER BY s.job_id",
        run,
    )
    return {row["name"]: row["value"] for row in rows}


def states(bench: Bench, run: int) -> dict[str, str]:
    """The state and the end of each step's job, by name."""
    rows = bench.rows(
        "SELECT s.name, j.state || ' ' || coalesce(j.ended_by, '') AS state FROM opsjobs.steps s"
        " JOIN opsjobs.jobs j ON j.id = s.job_id WHERE s.workflow_id = %s ORDER BY j.id",
        run,
    )
    return {row["name"]: row["state"] for row in rows}


def run_of(bench: Bench, run: int) -> dict[str, Any]:
    """The row of a run, which must contradict no invariant."""
    assert checks(bench.connection) == []
    return bench.row("SELECT * FROM opsjobs.workflows WHERE id = %s", run)


def test_results_go_from_step_to_step(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task
) -> None:
    flow = opsjobs.workflow("results")
    first = flow.step("first", give, value={"rows": [{"id": 7}], "none": None})
    flow.step("id", give, value=first.result["rows"][0]["id"])
    flow.step("none", give, value=first.result["none"])
    run = flow.start()
    db.session.commit()
    perform_due()
    assert outputs(bench, run.id)["id"] == 7
    assert outputs(bench, run.id)["none"] is None
    assert run_of(bench, run.id)["state"] == "finished"


@pytest.mark.parametrize(
    ("path", "why"),
    [(("rows", 3), "it has no value at rows.3"), (("gone",), "it has no value at gone")],
)
def test_a_missing_result_ends_the_step_by_name(
    path: tuple[Any, ...], why: str, db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task
) -> None:
    """Case 18: never null."""
    flow = opsjobs.workflow("results")
    result: Any = flow.step("first", give, value={"rows": []}).result
    for key in path:
        result = result[key]
    flow.step("second", give, value=result)
    run = flow.start()
    db.session.commit()
    perform_due()
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE ended_by = 'result_missing'")
    assert job["ended_reason"] == f"value takes the result of step first, but {why}"
    assert run_of(bench, run.id)["ended_by_step"] == "second"


def test_a_map_adds_a_step_per_element_and_its_results_are_in_order(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task, double: Task
) -> None:
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=[3, 1, 2])
    plus = flow.step("plus", give, value=100)
    doubled = flow.map("double", double, over=numbers.result, as_="number", plus=plus.result)
    flow.step("all", give, value=doubled.results)
    run = flow.start()
    db.session.commit()
    perform_due()
    found = outputs(bench, run.id)
    assert found["all"] == [106, 102, 104]
    assert (found["double[0]"], found["double[2]"]) == (106, 104)
    row = run_of(bench, run.id)
    assert (row["state"], row["steps"], row["settled"]) == ("finished", 7, 7)


def test_workflows_within_workflows_lose_no_dependency(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench
) -> None:
    """Case 10: what waits for a part waits for the parts in it, and for what its maps add."""
    ran: list[Any] = []

    @opsjobs.task(record_output=True)
    def call(name: str, number: int = 0) -> list[int]:
        ran.append(f"{name} {number}" if number else name)
        return [1, 2]

    inner = opsjobs.workflow("inner")
    found = inner.step("find", call, name="inner find")
    inner.map("each", call, over=found.result, as_="number", name="each")
    middle = opsjobs.workflow("middle")
    part = middle.add("inner", inner, after=middle.step("begin", call, name="middle begin"))
    middle.step("end", call, name="middle end", after=part)
    outer = opsjobs.workflow("outer")
    whole = outer.add("middle", middle, after=outer.step("begin", call, name="outer begin"))
    outer.step("end", call, name="outer end", after=whole)
    run = outer.start()
    db.session.commit()
    perform_due()
    assert ran == [
        "outer begin",
        "middle begin",
        "inner find",
        "each 1",
        "each 2",
        "middle end",
        "outer end",
    ]
    assert run_of(bench, run.id)["state"] == "finished"


@pytest.mark.parametrize("value", [[], [5]])
def test_a_map_of_none_or_one_gives_a_list(
    value: list[int], db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task, double: Task
) -> None:
    """Cases 8 and 9."""
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=value)
    doubled = flow.map("double", double, over=numbers.result, as_="number")
    flow.step("all", give, value=doubled.results)
    run = flow.start()
    db.session.commit()
    perform_due()
    assert outputs(bench, run.id)["all"] == [2 * number for number in value]
    assert run_of(bench, run.id)["state"] == "finished"


def test_a_failed_member_cancels_what_is_behind_its_map(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task, double: Task
) -> None:
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=[1, -1, 2])
    doubled = flow.map("double", double, over=numbers.result, as_="number")
    flow.step("all", give, value=doubled.results)
    run = flow.start()
    db.session.commit()
    perform_due()
    assert states(bench, run.id) == {
        "numbers": "finished returned",
        "double": "finished returned",
        "all": "canceled dependency",
        "double[0]": "finished returned",
        "double[1]": "failed exhausted",
        "double[2]": "finished returned",
    }
    assert run_of(bench, run.id)["ended_by_step"] == "double[1]"


def test_a_step_that_goes_on_reads_a_failed_member_as_null(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task, double: Task
) -> None:
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=[1, -1])
    doubled = flow.map("double", double, over=numbers.result, as_="number")
    flow.step("all", give, value=doubled.results, on_failure="continue")
    run = flow.start()
    db.session.commit()
    perform_due()
    assert outputs(bench, run.id)["all"] == [2, None]
    row = run_of(bench, run.id)
    assert (row["state"], row["ended_by_step"]) == ("failed", "double[1]")


def test_members_that_may_fail_read_as_null(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task, double: Task
) -> None:
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=[1, -1])
    doubled = flow.map("double", double, over=numbers.result, as_="number", may_fail=True)
    flow.step("all", give, value=doubled.results)
    run = flow.start()
    db.session.commit()
    perform_due()
    assert outputs(bench, run.id)["all"] == [2, None]
    assert run_of(bench, run.id)["state"] == "finished"


@pytest.mark.parametrize(
    ("value", "ended_by", "why"),
    [
        ({"a": 1}, "invalid_args", "over must be a list, it is a dict"),
        (None, "invalid_args", "over must be a list, it is a NoneType"),
        ([1, "x", 2, {}], "invalid_args", "[1].number: "),
        ([1] * 10_001, "too_large", "its list has 10,001 elements, a map takes 10,000"),
    ],
)
def test_a_list_that_a_map_cannot_use_ends_it_by_name(
    value: Any,
    ended_by: str,
    why: str,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    give: Task,
    double: Task,
) -> None:
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=value)
    flow.map("double", double, over=numbers.result, as_="number")
    run = flow.start()
    db.session.commit()
    perform_due()
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = 'opsjobs.map'")
    assert (job["state"], job["ended_by"]) == ("failed", ended_by)
    assert job["ended_reason"].startswith(why)
    assert run_of(bench, run.id)["steps"] == 2


@pytest.mark.parametrize("most", [4, 5])
def test_elements_count_into_the_jobs_of_a_run_and_not_into_the_steps_of_its_definition(
    most: int,
    monkeypatch: pytest.MonkeyPatch,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    give: Task,
    double: Task,
) -> None:
    """With smaller limits: two steps in a definition, and four or five jobs in a run."""
    monkeypatch.setattr(prepare, "MOST_STEPS", 2)
    monkeypatch.setattr(expand_map, "MOST_JOBS", most)
    flow = opsjobs.workflow("map")
    numbers = flow.step("numbers", give, value=[1, 2, 3])
    flow.map("double", double, over=numbers.result, as_="number")
    run = flow.start()
    db.session.commit()
    perform_due()
    row = run_of(bench, run.id)
    if most == 5:
        assert (row["state"], row["steps"]) == ("finished", 5)
        return
    assert (row["state"], row["steps"], row["ended_by_step"]) == ("failed", 2, "double")
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE ended_by = 'too_large'")
    assert job["ended_reason"] == (
        "its list has 3 elements, and with them the run would have more than 4 jobs: enqueue a batch instead"
    )


def test_a_step_that_will_be_tried_again_has_not_ended(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task
) -> None:
    """Case 4: nothing behind it is released or canceled before its last attempt."""
    attempts: list[int] = []

    @opsjobs.task(max_attempts=2, backoff=0)
    def fail_first() -> None:
        attempts.append(current_job().attempt)
        if len(attempts) == 1:
            raise ValueError("on purpose")

    flow = opsjobs.workflow("tried")
    flow.step("behind", give, after=flow.step("first", fail_first))
    run = flow.start()
    db.session.commit()
    perform_due(limit=1)
    assert states(bench, run.id)["behind"] == "deferred "
    assert bench.rows("SELECT 1 FROM opsjobs.workflow_end_events") == []
    perform_due()
    assert attempts == [1, 2]
    assert run_of(bench, run.id)["state"] == "finished"


def test_members_go_to_the_lanes_of_their_limit(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task
) -> None:
    @opsjobs.task(limit=Limit("api", rate=10, per=60, partition="account_id"))
    def call(account_id: int) -> None: ...

    flow = opsjobs.workflow("map")
    accounts = flow.step("accounts", give, value=[1, 2, 1])
    flow.map("call", call, over=accounts.result, as_="account_id")
    flow.start()
    db.session.commit()
    perform_due()
    rows = bench.rows("SELECT limiter, partition FROM opsjobs.jobs WHERE task = %s", call.name)
    assert [(row["limiter"], row["partition"]) for row in rows] == [
        ("api", "1"),
        ("api", "2"),
        ("api", "1"),
    ]


def test_an_end_is_reported_to_the_callback(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, host: Host, give: Task
) -> None:
    heard: list[tuple[int, str, dict[str, Any]]] = []

    @opsjobs.task
    def hear(workflow_id: int, state: str, context: dict[str, Any]) -> None:
        heard.append((workflow_id, state, context))

    flow = opsjobs.workflow("told", context={"order": 7}, on_end=hear)
    flow.step("only", give)
    run = flow.start()
    db.session.commit()
    perform_due()
    assert heard == [(run.id, "finished", {"order": 7})]
    assert bench.rows("SELECT of_id, end_no, event FROM opsjobs.callbacks") == [
        {"of_id": run.id, "end_no": 1, "event": "end"}
    ]
    assert run_of(bench, run.id)["end_no"] == 1


def test_a_callback_keeps_its_tags_and_meta(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, give: Task
) -> None:
    @opsjobs.task(tags=["billing"], meta={"owner": "anna"})
    def hear(workflow_id: int) -> None: ...

    flow = opsjobs.workflow("told", on_end=hear)
    flow.step("only", give)
    flow.start()
    db.session.commit()
    perform_due()
    job = bench.row("SELECT tags, meta FROM opsjobs.jobs WHERE task = %s", hear.name)
    assert job == {"tags": ["billing"], "meta": {"owner": "anna"}}


def test_a_run_that_is_repaired_calls_back_once_per_end(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, double: Task
) -> None:
    """Case 16."""
    heard: list[tuple[int, str]] = []

    @opsjobs.task
    def hear(workflow_id: int, end_no: int, state: str) -> None:
        heard.append((end_no, state))

    flow = opsjobs.workflow("told", on_end=hear)
    flow.step("behind", double, number=flow.step("fails", double, number=-1).result)
    run = flow.start()
    db.session.commit()
    why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
    perform_due()
    opsjobs.operator.retry_workflow(run.id, **why)
    perform_due()
    opsjobs.operator.skip_step(run.id, "fails", 4, **why)
    perform_due()
    assert heard == [(1, "failed"), (2, "failed"), (3, "finished")]
    assert run_of(bench, run.id)["end_no"] == 3


@pytest.mark.parametrize("repair", ["retry", "skip"])
@pytest.mark.parametrize(
    ("deploy", "ended_by", "why"),
    [
        ("removes it", "unknown_task", "no task 'ship' is declared here: import the module"),
        ("changes it", "invalid_args", "address: "),
    ],
)
def test_a_step_whose_task_a_deploy_removes_or_changes_ends_by_name(
    deploy: str,
    ended_by: str,
    why: str,
    repair: str,
    db: SQLAlchemy,
    opsjobs: OpsJobs,
    bench: Bench,
    give: Task,
) -> None:
    """Case 30: the run says which step, and a retry after the next deploy, or a skip, repairs it."""

    @opsjobs.task(record_output=True, name="ship")
    def ship(parcel: int) -> int:
        return parcel

    flow = opsjobs.workflow("order")
    paid = flow.step("pay", give, value=7)
    shipped = flow.step("ship", ship, parcel=paid.result)
    flow.step("tell", give, value=shipped.result)
    run = flow.start()
    db.session.commit()
    before = opsjobs.tasks.pop("ship")
    if deploy == "changes it":

        @opsjobs.task(record_output=True, name="ship")
        def ship_to(parcel: int, address: str) -> int:
            return parcel

    perform_due()
    row = run_of(bench, run.id)
    assert (row["state"], row["ended_by_step"]) == ("failed", "ship")
    job = bench.row("SELECT * FROM opsjobs.jobs WHERE task = 'ship'")
    assert (job["state"], job["ended_by"]) == ("failed", ended_by)
    assert why in job["ended_reason"]
    opsjobs.tasks["ship"] = before
    told: dict[str, Any] = {"actor": "anna", "reason": "the task is deployed again"}
    if repair == "retry":
        opsjobs.operator.retry_workflow(run.id, **told)
    else:
        opsjobs.operator.skip_step(run.id, "ship", 7, **told)
    perform_due()
    assert outputs(bench, run.id)["tell"] == 7
    assert run_of(bench, run.id)["state"] == "finished"
