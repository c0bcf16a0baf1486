"""What operators decide about limiters:
a cooldown of one or of a partition, its end, and what jobs do then.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.host import Host
from flask_opsjobs.limits.actions import make_target, read_target, split_target
from tests.conftest import MakeBench
from tests.limits.conftest import Limited, commit, limited  # noqa: F401
from tests.support.engine import Bench, forget_tasks, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
Commit = Callable[..., int]


@pytest.fixture(name="task")
def _task(limited: Limited) -> Any:  # noqa: F811
    return limited(rate=100, per=1)


def cooldowns(bench: Bench) -> dict[str, datetime | None]:
    """Until when each row says that it cools down, by target."""
    rows = bench.rows(
        "SELECT name, NULL AS partition, cooldown_until FROM opsjobs.limiters"
        " UNION ALL SELECT limiter, partition, cooldown_until FROM opsjobs.buckets"
    )
    return {make_target(row["name"], row["partition"]): row["cooldown_until"] for row in rows}


@pytest.mark.parametrize("partition", [None, "", "42", "a/b", "..", "naïve ☂", "x" * 200])
def test_a_target_holds_any_partition(partition: str | None) -> None:
    target = make_target("customer-api", partition)
    assert read_target(target) == target
    assert split_target(target) == ("customer-api", partition)


@pytest.mark.parametrize(
    "text",
    ["limiter/", "limiter//x", "limiter/a b", "limiter/a/x\0", "limiter/a/\ud800", "queue/a"],
)
def test_no_other_text_is_a_target(text: str) -> None:
    assert read_target(text) is None


@pytest.mark.usefixtures("task")
def test_a_cooldown_says_until_when_why_and_by_whom(bench: Bench, operator: Operator) -> None:
    now = read_clock(bench.connection)
    plan = operator.plan(
        "limiter.cooldown", ["limiter/api"], actor="anna", params={"minutes": "30"}
    )
    (change,) = plan.items[0].changes
    assert (change.what, change.before) == ("cooldown", None)
    assert cooldowns(bench) == {"limiter/api": None}, "a plan writes nothing"
    operator.cooldown("api", 30, **WHY)
    row = bench.row("SELECT * FROM opsjobs.limiters")
    assert (row["cooldown_by"], row["cooldown_reason"]) == ("anna", WHY["reason"])
    assert row["cooldown_until"] - row["cooldown_at"] == timedelta(minutes=30)
    assert row["cooldown_at"] >= now
    event = bench.row("SELECT * FROM opsjobs.audit_events WHERE action = 'limiter.cooldown'")
    assert (event["subject"], event["outcome"]) == ("limiter/api", "done")
    assert event["before"]["limiter/api"]["cooldown_until"] is None
    assert event["after"]["limiter/api"]["cooldown_by"] == "anna"


def test_nothing_of_it_is_dispatched_until_it_is_cleared(
    bench: Bench,
    operator: Operator,
    task: Any,
    commit: Commit,  # noqa: F811
) -> None:
    commit(task, account=7)
    operator.cooldown("api", 30, **WHY)
    assert bench.dispatch("default|api|7") == 0
    receipt = operator.clear_cooldown("api", **WHY)
    assert receipt.done[0].changes[0].after is None
    assert cooldowns(bench)["limiter/api"] is None
    assert bench.dispatch("default|api|7") == 1


def test_a_partition_cools_down_by_itself(
    bench: Bench,
    operator: Operator,
    task: Any,
    commit: Commit,  # noqa: F811
) -> None:
    commit(task, account=7)
    commit(task, account=8)
    operator.cooldown("api/7", 30, **WHY)
    assert bench.dispatch("default|api|7") == 0
    assert bench.dispatch("default|api|8") == 1
    assert cooldowns(bench)["limiter/api"] is None
    operator.clear_cooldown("api/7", **WHY)
    assert bench.dispatch("default|api|7") == 1


@pytest.mark.usefixtures("task")
def test_a_longer_cooldown_takes_the_place_of_a_shorter_one(operator: Operator) -> None:
    operator.cooldown("api", 1, **WHY)
    receipt = operator.cooldown("api", 60, **WHY)
    assert "by anna" in (receipt.done[0].changes[0].before or "")


@pytest.mark.usefixtures("task")
def test_a_cooldown_that_is_over_is_none(bench: Bench, host: Host, operator: Operator) -> None:
    operator.cooldown("api", 1, **WHY)
    later = read_clock(bench.connection) + timedelta(minutes=2)
    plan = operator.plan("limiter.clear", ["limiter/api"], actor="anna", now=later)
    assert (plan.items, plan.skipped[0].code) == ((), "already")


@pytest.mark.usefixtures("limited")
def test_what_cannot_be_is_skipped_with_its_reason(operator: Operator, limited: Limited) -> None:  # noqa: F811
    limited("plain", limiter="whole", partition=None, concurrency=1)
    targets = ["limiter/whole/7", "limiter/nowhere", "limiter/whole"]
    plan = operator.plan("limiter.clear", targets, actor="anna")
    assert [skip.code for skip in plan.skipped] == ["not_found", "not_found", "already"]
    assert [skip.says for skip in plan.skipped] == [
        "limiter whole has no partitions",
        "no process has declared the limiter nowhere",
        "limiter whole has no cooldown",
    ]


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("minutes", [0, -1, "", "soon", 2.5, True, 525_601, None])
def test_no_other_word_is_a_number_of_minutes(operator: Operator, minutes: Any) -> None:
    with pytest.raises(ActionRefused, match="from 1 to 525,600"):
        operator.cooldown("api", minutes, **WHY)


@pytest.mark.usefixtures("task")
def test_a_refusal_is_audited_and_writes_nothing(bench: Bench, operator: Operator) -> None:
    shown = operator.preview(
        "limiter.cooldown", ["limiter/api"], actor="anna", via="page", params={"minutes": 5}
    )
    operator.cooldown("api", 60, **WHY)
    until = cooldowns(bench)
    receipt = operator.execute(shown.id, shown.token, **WHY)
    assert receipt.code == "drifted"
    assert "cooldown" in receipt.drifted[0].what
    assert cooldowns(bench) == until
    event = bench.row("SELECT * FROM opsjobs.audit_events ORDER BY sequence DESC LIMIT 1")
    assert (event["outcome"], event["code"]) == ("refused", "drifted")


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("target", ["limiter/api", "limiter/api/7"])
def test_of_two_at_once_the_second_sees_what_the_first_did(
    bench: Bench, make_bench: MakeBench, host: Host, operator: Operator, target: str
) -> None:
    """Both have seen it open; only one may act on that."""
    shown = [
        operator.preview(
            "limiter.cooldown", [target], actor="anna", via="page", params={"minutes": n}
        )
        for n in (5, 60)
    ]

    def execute(preview: Any) -> str | None:
        return Operator(host).execute(preview.id, preview.token, **WHY).code

    codes = race(lambda: execute(shown[0]), lambda: execute(shown[1]))
    assert sorted(code or "done" for code in codes) == ["done", "drifted"]
    found = bench.rows("SELECT outcome FROM opsjobs.audit_events WHERE action = 'limiter.cooldown'")
    assert sorted(row["outcome"] for row in found) == ["done", "refused"]


def test_a_partition_is_cleared_also_when_the_limiter_has_none_any_more(
    bench: Bench,
    operator: Operator,
    host: Host,
    limited: Limited,  # noqa: F811
    commit: Commit,  # noqa: F811
) -> None:
    """Else what waits in it would wait out the cooldown, whoever decides otherwise."""
    job_id = commit(limited(rate=100, per=1), account=7)
    operator.cooldown("api/7", 60, **WHY)
    forget_tasks(host)
    limited(rate=100, per=1, partition=None)
    assert bench.dispatch_all() == 0
    assert operator.run("limiter.clear", ["limiter/api/7"], **WHY).is_done
    assert bench.dispatch_all() == 1
    assert bench.job(job_id)["state"] == "queued"
