"""What `start` refuses: every error at once, by its step, and nothing is written."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_opsjobs import (
    InvalidWorkflow,
    Limit,
    OpsJobs,
    OpsJobsError,
    Task,
    Unique,
    Workflow,
    previous,
)
from flask_opsjobs.host import Host
from flask_opsjobs.testing import perform_due
from tests.support.runs import count_rows, read, steps_of

Build = Callable[[Workflow], object]


class Refused:
    """Starts a workflow that cannot be started, and keeps what the error says."""

    def __init__(self, opsjobs: OpsJobs, db: SQLAlchemy, build: Build, **options: Any) -> None:
        flow = opsjobs.workflow(
            "bad", context=options.pop("context", None), on_end=options.pop("on_end", None)
        )
        build(flow)
        with pytest.raises(InvalidWorkflow) as caught:
            flow.start(**options)
        self.error = caught.value
        self.says = str(caught.value)
        # A tool that prints every context finds no value there.
        assert caught.value.__context__ is None
        self.errors = {(one["step"], one["loc"], one["type"]) for one in caught.value.errors}
        # The session goes on, and the host's transaction has nothing of the run.
        for table in ("workflows", "steps", "edges", "jobs", "job_count_deltas"):
            found = db.session.execute(text(f"SELECT count(*) FROM opsjobs.{table}")).scalar_one()
            assert found == 0, table


@pytest.fixture
def refuse(opsjobs: OpsJobs, db: SQLAlchemy) -> Callable[..., Refused]:
    def refuse(build: Build, **options: Any) -> Refused:
        return Refused(opsjobs, db, build, **options)

    return refuse


def step(*args: Any, **kwargs: Any) -> Build:
    """Builds a workflow of this one step."""
    return lambda flow: flow.step(*args, **kwargs)


def steps(flow: Workflow, task: Task, *names: str) -> None:
    for name in names:
        flow.step(name, task)


# --- the whole


def test_every_error_is_told_at_once(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        flow.step("", bill)
        flow.step("a", bill, nope=1)
        flow.step("a", bill, customer="many")
        flow.step("b", bill, after=["c", "d"])
        flow.step("c", bill, after="b")
        flow.wait("w")

    refused = refuse(build, unique="", deadline=-1)
    assert refused.errors == {
        ("", "", "name"),
        ("", "", "deadline"),
        ("''", "", "name"),
        ("a", "nope", "extra_forbidden"),
        ("a", "", "duplicate"),
        ("a", "customer", "int_parsing"),
        ("b", "", "unknown_step"),
        ("", "", "cycle"),
        ("w", "", "signals"),
    }
    assert "workflow bad: " in refused.says
    assert "step a: nope: the task takes no such argument" in refused.says
    assert "b → c → b" in refused.says
    assert "many" not in refused.says


def test_a_message_has_few_errors_and_errors_has_all(refuse: Any, bill: Task) -> None:
    refused = refuse(lambda flow: [flow.step(f"s{n}", bill, nope=n) for n in range(1_000)])
    assert len(refused.error.errors) == 1_000
    assert len(refused.says) < 3_000
    assert refused.says.endswith("; and 980 more errors")


def test_no_step(refuse: Any) -> None:
    assert refuse(lambda flow: None).errors == {("", "", "empty")}


def test_more_than_ten_thousand_steps(refuse: Any, bill: Task) -> None:
    refused = refuse(lambda flow: [flow.step(f"s{number}", bill) for number in range(10_001)])
    assert refused.errors == {("", "", "too_many_steps")}
    assert "it has 10,001 steps: a workflow has at most 10,000" in refused.says


def test_more_than_a_hundred_thousand_edges(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        first = [flow.step(f"a{number}", bill) for number in range(101)]
        for number in range(1_000):
            flow.step(f"b{number}", bill, after=first)

    assert refuse(build).errors == {("", "", "too_many_edges")}


@pytest.mark.parametrize(
    ("context", "code"),
    [
        ([1], "not_json"),
        ({"a": object()}, "not_json"),
        ({"a": "\0"}, "nul"),
        ({"a": "\ud800"}, "surrogate"),
        ({"a": float("nan")}, "not_finite"),
        ({"a": 10**5_000}, "unreadable"),
        ({1: "a", "1": "b"}, "same_keys"),
        ({"a": "x" * 2_000_000}, "too_large"),
        ({"a": [previous]}, "reference"),
    ],
)
def test_a_context_that_json_cannot_hold(refuse: Any, bill: Task, context: Any, code: str) -> None:
    refused = refuse(step("a", bill), context=context)
    assert refused.errors == {("", "", code)}
    assert "its context " in refused.says


@pytest.mark.parametrize("unique", ["", "x" * 201, "a\0", "\ud800", 7, b"key"])
def test_a_unique_key_that_is_no_text(refuse: Any, bill: Task, unique: Any) -> None:
    assert refuse(step("a", bill), unique=unique).errors == {("", "", "name")}


@pytest.mark.parametrize("deadline", [0, -1, timedelta(0), float("nan"), 1e12, "soon", True])
def test_a_deadline_that_is_no_duration(refuse: Any, bill: Task, deadline: Any) -> None:
    assert refuse(step("a", bill), deadline=deadline).errors == {("", "", "deadline")}


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0", "\ud800", 7, None])
def test_a_workflow_without_a_name(opsjobs: OpsJobs, db: SQLAlchemy, bill: Task, name: Any) -> None:
    flow = opsjobs.workflow(name)
    flow.step("a", bill)
    with pytest.raises(InvalidWorkflow, match="its name"):
        flow.start()


# --- names


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "\ud800", 7, None, ["a"], "x" * 10**6])
def test_a_step_without_a_name(refuse: Any, bill: Task, name: Any) -> None:
    refused = refuse(step(name, bill))
    assert {kind for _, _, kind in refused.errors} == {"name"}
    assert len(refused.says) < 500
    refused.says.encode()


@pytest.mark.parametrize(
    "name", ["🙈" * 200, "../../x", "a\tb\nc\\", " ", "<b>&", "'; DROP TABLE jobs; --", "%(id)s"]
)
def test_any_other_text_is_a_name(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task, name: str
) -> None:
    flow = opsjobs.workflow(name)
    flow.step(name, bill)
    flow.step("b", bill, after=name)
    flow.wait("w", signal=name, key=name)
    run = flow.start(unique=name)
    db.session.commit()
    found = steps_of(host, run.id)
    assert list(found) == [name, "b", "w"]
    assert (found["w"]["signals"], found["w"]["key"]) == ([name], name)
    (row,) = read(host, "SELECT name, unique_key FROM opsjobs.workflows")
    assert (row["name"], row["unique_key"]) == (name, name)


def test_the_longest_names_fit_into_the_indexes(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    # Postgres compresses what repeats itself.
    chance = random.Random(7)
    longest = ["".join(chr(chance.randint(0x1F300, 0x1F6FF)) for _ in range(200)) for _ in range(5)]
    name, step_name, signal, key, unique = longest
    flow = opsjobs.workflow(name)
    flow.wait(step_name, signal=signal, key=key)
    run = flow.start(unique=unique)
    opsjobs.signal(signal, key=key, dedupe=unique)
    db.session.commit()
    perform_due()
    assert steps_of(host, run.id)[step_name]["ended_by"] == "signaled"


def test_a_name_twice(refuse: Any, bill: Task) -> None:
    refused = refuse(lambda flow: steps(flow, bill, "a", "b", "a"))
    assert refused.errors == {("a", "", "duplicate")}
    assert "step a: another step has this name too: give each its own" in refused.says


def test_a_name_that_a_map_will_give(refuse: Any, fetch: Task, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.map("bill", bill, over=got.result, as_="customer")
        steps(flow, bill, "bill[0]", "bill[17]", "bill[x]", "get[0]", "bill[]", "bill0]")

    assert refuse(build).errors == {("bill[0]", "", "duplicate"), ("bill[17]", "", "duplicate")}


# --- what waits for what


def test_an_unknown_step(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        steps(flow, bill, "billing")
        flow.step("b", bill, after=["biling", "x" * 10**6, None])

    refused = refuse(build)
    assert refused.errors == {("b", "", "unknown_step")}
    assert "it waits for biling, which is no step: did you mean billing?" in refused.says
    assert len(refused.says) < 500


def test_many_unknown_steps_cost_little(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        for number in range(5_000):
            flow.step(f"step number {number}", bill, after=f"step numbers {number}")

    assert len(refuse(build).error.errors) == 5_000


@pytest.mark.parametrize("wrong", [7, object(), {"a": 1}, b"a", [[7]]])
def test_after_what_is_no_step(refuse: Any, bill: Task, wrong: Any) -> None:
    refused = refuse(step("a", bill, after=wrong))
    assert refused.errors == {("a", "", "unknown_step")}
    assert "after takes steps, names of steps and lists" in refused.says


def test_a_step_of_another_workflow(refuse: Any, opsjobs: OpsJobs, fetch: Task, bill: Task) -> None:
    other = opsjobs.workflow("other").step("theirs", fetch)

    def build(flow: Workflow) -> None:
        flow.step("a", bill, after=other)
        flow.step("b", bill, customer=other.result["id"])

    refused = refuse(build)
    assert refused.errors == {("a", "", "unknown_step"), ("b", "", "unknown_step")}
    assert "it waits for theirs, a step of workflow other: add that workflow" in refused.says


def test_a_cycle_shows_its_path(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        flow.step("before", bill)
        flow.step("a", bill, after=["before", "c"])
        flow.step("b", bill, after="a")
        flow.step("c", bill, after="b")
        flow.step("behind", bill, after="c")

    refused = refuse(build)
    assert refused.errors == {("", "", "cycle")}
    assert "its steps wait for each other in a cycle: a → b → c → a" in refused.says


def test_a_step_that_waits_for_itself(refuse: Any, bill: Task) -> None:
    assert "in a cycle: a → a" in refuse(step("a", bill, after="a")).says


def test_all_cycles_are_told_at_once(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        flow.step("a", bill, after="b")
        flow.step("b", bill, after="a")
        flow.step("c", bill, after="c")

    says = refuse(build).says
    assert "in a cycle: a → b → a" in says
    assert "in a cycle: c → c" in says


def test_of_many_cycles_ten_are_told(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        for number in range(5_000):
            flow.step(f"s{number}", bill, after=f"s{number}")

    assert refuse(build).says.count("in a cycle") == 10


def test_a_cycle_of_ten_thousand(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        for number in range(10_000):
            flow.step(f"s{number}", bill, after=f"s{(number - 1) % 10_000}")

    refused = refuse(build)
    assert "s0 → s1 → s2 → s3 → s4 → s5 → s6 → s7 → s8 → s9 → (9,990 more) → s0" in refused.says


@pytest.mark.parametrize("wrong", ["ignore", None, 1, []])
def test_another_word_for_on_failure(refuse: Any, bill: Task, wrong: Any) -> None:
    assert refuse(step("a", bill, on_failure=wrong)).errors == {("a", "", "on_failure")}


def test_may_fail_is_true_or_false(refuse: Any, bill: Task) -> None:
    assert refuse(step("a", bill, may_fail="yes")).errors == {("a", "", "may_fail")}


# --- results


def test_the_result_of_a_task_that_keeps_none(refuse: Any, opsjobs: OpsJobs, bill: Task) -> None:
    @opsjobs.task
    def forget() -> int:
        return 1

    def build(flow: Workflow) -> None:
        source = flow.step("source", forget)
        flow.step("a", bill, customer=source.result)
        mapped = flow.map("m", bill, over=source.result, as_="customer")
        flow.map("n", forget, over=mapped.results, as_="x")

    refused = refuse(build)
    assert ("a", "", "no_output") in refused.errors
    assert ("m", "", "no_output") in refused.errors
    assert "but task forget keeps none: declare it with record_output=True" in refused.says


@pytest.mark.parametrize(
    "key", [1.5, None, True, ("a",), slice(1, 2), "a\0", "\ud800", 2**31, b"a"]
)
def test_a_result_by_what_is_no_path(refuse: Any, fetch: Task, bill: Task, key: Any) -> None:
    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", bill, customer=got.result["id"][key])

    refused = refuse(build)
    assert refused.errors == {("a", "", "path")}
    assert "a part of a result is named by texts and whole numbers" in refused.says


def test_a_part_of_the_results_of_a_map(refuse: Any, fetch: Task, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        mapped = flow.map("m", bill, over=got.result, as_="customer")
        flow.step("a", bill, customer=mapped.results[0])

    assert refuse(build).errors == {("a", "", "path")}


@pytest.mark.parametrize("wrap", [lambda one: [one], lambda one: {"a": {"b": (one,)}}])
def test_a_result_inside_of_an_argument(
    refuse: Any, opsjobs: OpsJobs, fetch: Task, wrap: Callable[[Any], Any]
) -> None:
    @opsjobs.task
    def anything(value: Any, numbers: list[int] | None = None) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", anything, value=wrap(got.result))
        flow.step("b", anything, value=1, numbers=wrap(got.result), nope=2)

    refused = refuse(build)
    assert refused.errors == {
        ("a", "value", "reference"),
        ("b", "numbers", "reference"),
        ("b", "nope", "extra_forbidden"),
    }
    assert "give each result as an argument of its own" in refused.says


def test_previous_outside_of_a_chain(
    refuse: Any, opsjobs: OpsJobs, db: SQLAlchemy, bill: Task
) -> None:
    assert refuse(step("a", bill, customer=previous)).errors == {("a", "", "unknown_step")}
    with pytest.raises(InvalidWorkflow, match="use it in a chain, after the first link"):
        opsjobs.chain("first", bill.s(customer=previous), bill.s()).start()


def test_a_result_cannot_be_used_while_a_workflow_is_built(opsjobs: OpsJobs, fetch: Task) -> None:
    result = opsjobs.workflow("w").step("get", fetch).result["id"]
    assert repr(result) == "<result of get['id']>"
    uses: list[Callable[[], object]] = [
        lambda: f"order-{result}",
        lambda: str(result),
        lambda: list(result),
        lambda: "yes" if result else "no",
        lambda: 1 in result,
        lambda: len(result),
        lambda: result == 7,
        lambda: result != 7,
        lambda: result < 7,
        lambda: result >= 7,
    ]
    for use in uses:
        with pytest.raises(TypeError, match="is not known while the workflow is built"):
            use()


# --- arguments


def test_arguments_that_do_not_fit(refuse: Any, opsjobs: OpsJobs, fetch: Task) -> None:
    @opsjobs.task
    def pay(order: int, amount: int, note: str = "") -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", pay, order=1)
        flow.step("b", pay, order=got.result["id"])
        flow.step("c", pay, order=got.result["id"], amount="much", note=7)
        flow.step("d", pay, order=1, amount=2, other=got.result)
        flow.step("e", pay.s(1, 2, "x", 4))
        flow.step("f", pay.s(got.result), order=1, amount=1)
        # These fit: a result counts as given.
        flow.step("ok", pay, order=got.result["id"], amount=got.result["id"], note=got.result)
        flow.step("ok too", pay.s(got.result, amount=1))

    assert refuse(build).errors == {
        ("a", "amount", "missing"),
        ("b", "amount", "missing"),
        ("c", "amount", "int_parsing"),
        ("c", "note", "string_type"),
        ("d", "other", "extra_forbidden"),
        ("e", "arguments", "too_many_positional"),
        ("f", "order", "given_twice"),
    }


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (object(), "not_json"),
        ("\0", "nul"),
        ("\ud800", "surrogate"),
        (float("nan"), "not_finite"),
        ("x" * 2_000_000, "too_large"),
    ],
)
def test_values_that_json_cannot_hold(
    refuse: Any, opsjobs: OpsJobs, fetch: Task, value: Any, code: str
) -> None:
    @opsjobs.task
    def anything(value: Any, other: int = 0) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", anything, value=value)
        flow.step("b", anything, value=value, other=got.result["id"])

    refused = refuse(build)
    assert {(name, kind) for name, _, kind in refused.errors} == {("a", code), ("b", code)}
    assert len(refused.says) < 1_000


def test_a_result_into_a_redacted_parameter(refuse: Any, opsjobs: OpsJobs, fetch: Task) -> None:
    """Case 29: refused at the start, with the way out."""

    @opsjobs.task(redact={"token"})
    def call(token: str = "", other: int = 0) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", call, token=got.result)
        flow.map("m", call, over=got.result, as_="token")

    refused = refuse(build)
    assert refused.errors == {("a", "token", "redacted"), ("m", "token", "redacted")}
    assert "let the task fetch it by an argument that is not redacted" in refused.says


@pytest.mark.parametrize(
    "limit",
    [
        Limit("crm", concurrency=9, partition="customer"),
        Limit("crm", concurrency=9, partition=lambda given: given.get("customer")),
        Limit("crm", concurrency=9, weight="customer"),
        Limit("crm", concurrency=9, weight=lambda given: 1),
    ],
)
def test_a_result_into_what_a_limiter_needs(
    refuse: Any, opsjobs: OpsJobs, fetch: Task, limit: Limit
) -> None:
    """Case 29."""

    @opsjobs.task(limit=limit)
    def sync(customer: int) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", sync, customer=got.result["id"])

    refused = refuse(build)
    assert refused.errors == {("a", "", "limit")}
    assert "needs the result that customer takes" in refused.says


def test_a_place_that_cannot_be_computed(refuse: Any, opsjobs: OpsJobs) -> None:
    @opsjobs.task(limit=Limit("crm", concurrency=2, weight="units"))
    def sync(units: int) -> None: ...

    refused = refuse(step("a", sync, units=3))
    assert refused.errors == {("a", "weight", "limit")}


@pytest.mark.parametrize(
    "unique",
    [
        Unique(until="ended"),
        Unique(until="ended", by=["account", "customer"]),
        Unique(until="ended", key=lambda given: 1),
    ],
)
def test_a_result_into_a_unique_lock(
    refuse: Any, opsjobs: OpsJobs, fetch: Task, unique: Unique
) -> None:
    """Case 29."""

    @opsjobs.task(unique=unique)
    def sync(account: int, customer: int) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.step("a", sync, account=1, customer=got.result["id"])

    refused = refuse(build)
    assert refused.errors == {("a", "", "unique")}
    assert "its unique lock needs the result that customer takes" in refused.says
    assert "start(unique=…)" in refused.says


# --- tasks and their options


@pytest.mark.parametrize("wrong", [None, "fetch", print, 7, lambda: None])
def test_a_step_that_calls_no_task(refuse: Any, bill: Task, wrong: Any) -> None:
    refused = refuse(step("a", wrong))
    assert refused.errors == {("a", "", "not_a_task")}
    assert "declare its function with @opsjobs.task" in refused.says


def test_a_chain_of_what_is_no_task(opsjobs: OpsJobs, db: SQLAlchemy, fetch: Task) -> None:
    with pytest.raises(InvalidWorkflow) as caught:
        opsjobs.chain("bad", fetch, print, None).start()  # type: ignore[arg-type]
    assert [(error["step"], error["type"]) for error in caught.value.errors] == [
        ("builtin_function_or_method", "not_a_task"),
        ("NoneType", "not_a_task"),
    ]
    with pytest.raises(InvalidWorkflow, match="it has no step"):
        opsjobs.chain("empty").start()


def test_a_task_of_another_app(refuse: Any) -> None:
    other = OpsJobs()

    @other.task
    def theirs() -> None: ...

    refused = refuse(step("a", theirs))
    assert refused.errors == {("a", "", "unknown_task")}


def test_options_that_a_step_cannot_have(
    refuse: Any, opsjobs: OpsJobs, db: SQLAlchemy, bill: Task
) -> None:
    def build(flow: Workflow) -> None:
        flow.step("a", bill.options(scheduled_at=datetime(2030, 1, 1, tzinfo=UTC)))
        flow.step("b", bill.options(session=db.session))
        flow.step("c", bill.options(meta={"x": "x" * 2_000_000}))

    assert refuse(build).errors == {
        ("a", "", "options"),
        ("b", "", "options"),
        ("c", "meta", "too_large"),
    }


# --- waits


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"signal": "a", "signals": ["b"]},
        {"signals": "payment"},
        {"signals": []},
        {"signals": 7},
        {"signals": ["a"] * 101},
    ],
)
def test_a_wait_without_one_list_of_signals(refuse: Any, options: dict[str, Any]) -> None:
    refused = refuse(lambda flow: flow.wait("w", **options))
    assert refused.errors == {("w", "", "signals")}


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0", 7, None])
def test_a_signal_without_a_name(refuse: Any, name: Any) -> None:
    assert refuse(lambda flow: flow.wait("w", signals=[name])).errors == {("w", "", "name")}


@pytest.mark.parametrize("key", [None, 42, "a\0", "\ud800", "x" * 201])
def test_a_key_that_is_no_text(refuse: Any, key: Any) -> None:
    assert refuse(lambda flow: flow.wait("w", signal="s", key=key)).errors == {("w", "", "name")}


def test_a_key_from_a_result(refuse: Any, fetch: Task) -> None:
    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.wait("w", signal="s", key=got.result["id"])  # type: ignore[arg-type]

    assert refuse(build).errors == {("w", "", "name")}


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0), float("inf"), "soon"])
def test_a_timeout_that_is_no_duration(refuse: Any, timeout: Any) -> None:
    refused = refuse(lambda flow: flow.wait("w", signal="s", timeout=timeout))
    assert refused.errors == {("w", "", "timeout")}


# --- maps


def test_a_map_over_what_is_no_result(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        flow.map("m", bill, over=[1, 2], as_="customer")  # type: ignore[arg-type]

    refused = refuse(build)
    assert refused.errors == {("m", "", "over")}
    assert "over must be the result of another step" in refused.says


def test_a_map_whose_arguments_do_not_fit(refuse: Any, fetch: Task, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.map("a", bill, over=got.result, as_="nope")
        flow.map("b", bill, over=got.result, as_="customer", customer=1)
        flow.map("c", bill, over=got.result, as_="customer", note=7)
        flow.map("d", bill, over=got.result, as_=None)  # type: ignore[arg-type]
        flow.map("e", bill, over=got.result, as_="note", customer=got.result, other=got.result)

    refused = refuse(build)
    assert {(name, kind) for name, _, kind in refused.errors} == {
        ("a", "extra_forbidden"),
        ("b", "given_twice"),
        ("c", "string_type"),
        ("d", "as_"),
        ("e", "extra_forbidden"),
    }


def test_a_map_of_a_unique_task(refuse: Any, opsjobs: OpsJobs, fetch: Task) -> None:
    @opsjobs.task(unique=Unique(until="ended"))
    def once(customer: int) -> None: ...

    def build(flow: Workflow) -> None:
        got = flow.step("get", fetch)
        flow.map("m", once, over=got.result, as_="customer")
        flow.map("ok", once.options(unique=None), over=got.result, as_="customer")

    refused = refuse(build)
    assert refused.errors == {("m", "", "unique")}
    assert ".options(unique=None)" in refused.says


# --- workflows in workflows


def test_what_cannot_be_added(refuse: Any, opsjobs: OpsJobs, fetch: Task, bill: Task) -> None:
    @opsjobs.task
    def report(workflow_id: int) -> None: ...

    inner = opsjobs.workflow("inner", context={"a": 1, "b": 2}, on_end=report)
    inner.step("x", bill, after="unknown")
    inner.step(7, bill)  # type: ignore[arg-type]

    def build(flow: Workflow) -> None:
        flow.step("unknown", bill)
        flow.add("in", inner)
        flow.add("not", bill)  # type: ignore[arg-type]
        flow.add(7, opsjobs.chain("one", bill))  # type: ignore[arg-type]

    refused = refuse(build, context={"a": 1, "b": 3})
    assert refused.errors == {
        ("", "", "add"),
        ("in.x", "", "unknown_step"),
        ("int", "", "name"),
    }
    for sentence in (
        "add('in'): its context has 'b'",
        "add('in'): it has an on_end",
        "add('not') takes a workflow, got Task",
        "add(7): the prefix must be a text, got int",
        "step in.x: it waits for in.unknown, which is no step",
    ):
        assert sentence in refused.says


def test_workflows_that_are_added_to_themselves_stop_growing(
    opsjobs: OpsJobs, db: SQLAlchemy, bill: Task
) -> None:
    flow = opsjobs.workflow("doubling")
    flow.step("a", bill)
    for number in range(13):
        flow.add(f"x{number}", flow)
    with pytest.raises(
        InvalidWorkflow, match="it has too many steps: a workflow has at most 10,000"
    ):
        flow.add("x13", flow)
    assert len(flow.nodes) == 2**13


def test_a_workflow_with_faults_that_is_added_to_itself_says_each_once(
    refuse: Any, opsjobs: OpsJobs, bill: Task
) -> None:
    def build(flow: Workflow) -> None:
        flow.step("a", bill, customer=1)
        flow.add("wrong", 5)  # type: ignore[arg-type]
        flow.add("again", flow)
        flow.add("more", flow)

    refused = refuse(build)
    assert refused.says.count("takes a workflow, got int") == 1


class _Odd:
    def __eq__(self, other: object) -> bool:
        raise ArithmeticError("no")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("context", [5, "text", [1], {"a": _Odd()}])
def test_a_context_that_is_none_is_an_error_of_start_and_not_of_add(
    refuse: Any, opsjobs: OpsJobs, bill: Task, context: Any
) -> None:
    inner = opsjobs.workflow("inner", context={"a": 1})
    inner.step("x", bill, customer=1)
    refused = refuse(lambda flow: flow.add("in", inner), context=context)
    assert "its context " in refused.says
    assert refused.errors <= {("", "", "not_json"), ("", "", "add")}


def test_a_result_in_a_context_is_an_error_of_start_also_after_add(
    refuse: Any, opsjobs: OpsJobs, fetch: Task
) -> None:
    inner = opsjobs.workflow("inner")
    inner.context = {"a": inner.step("x", fetch).result}

    def build(flow: Workflow) -> None:
        flow.context = {"a": flow.step("y", fetch).result}
        flow.add("in", inner)

    assert refuse(build).errors == {("", "", "reference"), ("", "", "add")}


# --- what a step waits for


def test_a_list_that_contains_itself(refuse: Any, bill: Task) -> None:
    def build(flow: Workflow) -> None:
        first = flow.step("a", bill, customer=1)
        before: list[Any] = [first]
        before.append([before])
        flow.step("b", bill, customer=2, after=before)

    refused = refuse(build)
    assert refused.errors == {("b", "", "unknown_step")}
    assert "step b: after has a list that contains itself" in refused.says


def test_a_list_in_a_list_in_a_list_and_the_same_list_twice(
    db: SQLAlchemy, opsjobs: OpsJobs, bill: Task
) -> None:
    flow = opsjobs.workflow("deep")
    first = flow.step("a", bill, customer=1)
    deep: list[Any] = [first]
    for _ in range(5_000):
        deep = [deep]
    flow.step("b", bill, customer=2, after=[deep, deep, (one for one in ["a", None])])
    flow.start()
    edges = db.session.execute(text("SELECT count(*) FROM opsjobs.edges")).scalar_one()
    assert edges == 1


# --- large values


def test_no_error_shows_the_whole_of_a_large_value(
    db: SQLAlchemy, opsjobs: OpsJobs, bill: Task
) -> None:
    large: Any = "x" * 1_000_000
    flow = opsjobs.workflow("large", context={large: 1})
    result = flow.step(large, bill).result[large]
    wrong: list[Callable[[], object]] = [
        lambda: str(result),
        lambda: flow.map(large, bill, over=result, as_="customer").result,
        lambda: bill.options(priority=large, tags=[large * 2], queue=large, deadline=large),
        lambda: opsjobs.batch(large, meta=large, on_end=large).open(),
        lambda: opsjobs.batch("small").enqueue(large),
        lambda: opsjobs.operator.run(large, [large], actor="anna", reason="why"),
        lambda: opsjobs.operator.retry_workflow(large, actor="anna", reason="why"),
        lambda: opsjobs.signal(large, key=large, dedupe=large, run=large),
        lambda: opsjobs.explain(large),
        lambda: other.start(deadline=large, unique=large),
    ]
    other = opsjobs.workflow("other", context={})
    flow.faults.clear()
    other.add(large, flow)
    other.step("after", bill, after=large)
    for call in wrong:
        with pytest.raises((OpsJobsError, TypeError, AttributeError)) as caught:
            call()
        assert len(str(caught.value)) < 2_000


# --- callbacks


def test_an_on_end_that_cannot_be_told(refuse: Any, opsjobs: OpsJobs, bill: Task) -> None:
    other = OpsJobs()

    @other.task
    def theirs(workflow_id: int) -> None: ...

    @opsjobs.task
    def deaf(state: str) -> None: ...

    @opsjobs.task
    def curious(workflow_id: int, why: str) -> None: ...

    @opsjobs.task(redact={"workflow_id"})
    def secretive(workflow_id: int = 0) -> None: ...

    @opsjobs.task(limit=Limit("mail", concurrency=1, partition="workflow_id"))
    def limited(workflow_id: int) -> None: ...

    @opsjobs.task
    def report(workflow_id: int) -> None: ...

    says = {
        theirs: "is not declared on this OpsJobs",
        deaf: "does not accept workflow_id",
        curious: "needs why: it gets only workflow_id, name, state, end_no, context",
        secretive: "does not accept workflow_id",
        limited: "has limit mail, whose partition or weight is an argument",
        report.options(delay=60): "has a delay",
        print: "must be a task, got builtin_function_or_method",
        report.s(1): "must be a task, got ChainLink",
    }
    for on_end, sentence in says.items():
        refused = refuse(step("a", bill), on_end=on_end)
        assert refused.errors == {("", "", "on_end")}
        assert sentence in refused.says


# --- unique locks that others hold


def test_a_lock_of_another_job_names_the_job(
    db: SQLAlchemy, opsjobs: OpsJobs, host: Host, bill: Task
) -> None:
    @opsjobs.task(unique=Unique(until="forever"))
    def sync(account: int) -> None: ...

    held, gone = sync.enqueue(1), sync.enqueue(2)
    db.session.execute(text("DELETE FROM opsjobs.jobs WHERE id = :id"), {"id": gone.id})
    db.session.commit()
    before = count_rows(host)
    flow = opsjobs.workflow("locked")
    flow.step("ok", bill)
    flow.step("one", sync, account=1)
    flow.step("two", sync, account=2, after="one")
    flow.step("three", sync, account=3)
    flow.step("four", sync, account=3)
    with pytest.raises(InvalidWorkflow) as caught:
        flow.start()
    says = str(caught.value)
    assert f"step one: job {held.id}, which is available, holds its unique lock" in says
    assert f"step two: job {gone.id}, which was deleted, holds its unique lock" in says
    assert "step four: it has the same unique lock as step three" in says
    assert {error["step"] for error in caught.value.errors} == {"one", "two", "four"}
    # The transaction goes on, without anything of the run.
    bill.enqueue()
    db.session.commit()
    after = count_rows(host)
    assert {name: after[name] - before[name] for name in after} == {
        "workflows": 0,
        "steps": 0,
        "edges": 0,
        "jobs": 1,
        "unique_locks": 0,
        "job_count_deltas": 1,
    }
