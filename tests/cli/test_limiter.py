"""`flask opsjobs limiter …`: what stands in limiters, what they would do,
and their cooldowns through the door.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.limits.queries import MOST_COUNTED, MOST_LIMITERS
from tests.limits.conftest import Limited
from tests.support.engine import Bench, forget_tasks

REASON = ("--reason", "because it is a test")
Call = Callable[..., Result]
Commit = Callable[..., int]


@pytest.fixture
def call(app: Flask) -> Call:
    def call(*words: str) -> Result:
        return app.test_cli_runner().invoke(args=["opsjobs", "limiter", *words])

    return call


@pytest.fixture(name="task")
def _task(limited: Limited) -> Any:
    return limited(rate=1, per=60, concurrency=2)


def test_the_list_says_what_is_allowed_and_waits(call: Call, task: Any, commit: Commit) -> None:
    commit(task, account=7)
    said = call("list")
    assert said.exit_code == 0, said.output
    assert said.output == (
        "api: 1 a minute, 1 at once; 2 at the same time; for each account; 1 waiting, 0 running\n"
    )
    (found,) = json.loads(call("list", "--json").output)["limiters"]
    assert (found["name"], found["rate"], found["waiting"]) == ("api", 1.0, 1)


def test_counts_that_are_broken_off_say_so(call: Call, task: Any, db: SQLAlchemy) -> None:
    task.enqueue_many({"account": 7} for _ in range(MOST_COUNTED + 5))
    db.session.commit()
    assert "; 1,000+ waiting, 0 running" in call("list").output
    assert "  partition 7: 1,000+ waiting" in call("explain", "api").output
    (found,) = json.loads(call("list", "--json").output)["limiters"]
    assert (found["is_waiting_capped"], found["is_holders_capped"]) == (True, False)


def test_a_list_of_too_many_says_that_it_is_cut(call: Call, limited: Limited) -> None:
    for number in range(MOST_LIMITERS - 1):
        limited(f"call_{number}", limiter=f"api_{number}", concurrency=1)
    assert json.loads(call("list", "--json").output)["is_cut"] is False
    limited("another", limiter="other", concurrency=1)
    assert "these are the first 100 by name" in call("list").output


def test_explain_says_what_blocks_and_until_when(
    bench: Bench,
    call: Call,
    task: Any,
    commit: Commit,
) -> None:
    first = commit(task, account=7)
    commit(task, account=7)
    bench.dispatch("default|api|7")
    bench.claim(first)
    said = call("explain", "api", "--partition", "7")
    assert said.exit_code == 0, said.output
    for words in (
        "api for 7: 1 a minute",
        "1 waiting",
        "0.0",
        "1 of 2 places taken",
        "too few tokens are left [limit_tokens]",
        "it may start at 20",
        f"runs: job {first}, weight 1",
    ):
        assert words in said.output
    told = json.loads(call("explain", "api", "--partition", "7", "--json").output)
    assert told["format"] == 1
    assert [block["code"] for block in told["bucket"]["blocks"]] == ["limit_tokens"]
    assert told["holders"][0]["job_id"] == first
    whole = json.loads(call("explain", "api", "--json").output)
    assert (whole["bucket"], whole["hot_partitions"]) == (None, [{"partition": "7", "waiting": 1}])


def test_a_partition_that_a_deploy_left_out_is_explained_while_jobs_are_in_it(
    bench: Bench,
    call: Call,
    limited: Limited,
    commit: Commit,
) -> None:
    task = limited(concurrency=1)
    running, _ = commit(task, account=42), commit(task, account=42)
    bench.dispatch("default|api|42")
    bench.claim(running)
    forget_tasks(bench.host)
    limited(concurrency=1, partition=None)
    whole = call("explain", "api")
    assert f"  runs: job {running} for 42, weight 1" in whole.output
    assert "  partition 42: 1 waiting" in whole.output
    assert "1 of 1 places taken" in call("explain", "api", "--partition", "42").output
    words = ("--count", "1", "--from-live", "--partition", "42", "--json")
    assert json.loads(call("simulate", "call", *words).output)["started"] == 2
    assert call("explain", "api", "--partition", "43").exit_code == 2


def test_a_partition_prints_no_line_of_its_own(
    app: Flask,
    bench: Bench,
    call: Call,
    limited: Limited,
    commit: Commit,
) -> None:
    forged = "7\n9 of 9 places taken\x1b[1m\u2028"
    task = limited(concurrency=1, partition=lambda _: forged)
    first, second = commit(task), commit(task)
    bench.dispatch(f"default|api|{forged}")
    bench.claim(first)
    why = app.test_cli_runner().invoke(args=["opsjobs", "why", str(second)])
    for said in (
        call("explain", "api"),
        call("explain", "api", "--partition", forged),
        call("cooldown", "api", "--partition", forged, "--minutes", "5", *REASON),
        why,
    ):
        assert said.exit_code == 0, said.output
        assert r"7\n9 of 9 places taken\x1b[1m\u2028" in said.output
        assert not [line for line in said.output.splitlines() if line.startswith("9 of 9")]


@pytest.mark.usefixtures("task")
def test_a_full_bucket_blocks_nobody(call: Call) -> None:
    assert "a job of weight 1 starts now" in call("explain", "api", "--partition", "9").output


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("explain", "nowhere"), "no process has declared the limiter nowhere"),
        (("simulate", "nowhere", "--count", "1"), "there is no task nowhere"),
        (("simulate", "call"), "give --count (how many jobs arrive at once) or --trace"),
        (("simulate", "call", "--count", "2", "--rate", "-1"), "rate must be a number above 0"),
        (("simulate", "call", "--count", "2", "--burst", "0"), "burst must be a whole number"),
        (("simulate", "call", "--count", "2000000"), "at most 1,000,000"),
        (("simulate", "call", "--count", "200", "--per", "31622400"), "100 years"),
        (("simulate", "call", "--count", "1", "--from-live"), "say which with --partition"),
        (("cooldown", "api", "--minutes", "0", *REASON), "from 1 to 525,600"),
        (("cooldown", "api", "--minutes", "0", "--dry-run"), "from 1 to 525,600"),
        (("cooldown", "bad name", "--minutes", "5", *REASON), "is not a target of limiter"),
        (("clear", "bad name", *REASON), "is not a target of limiter"),
        (
            ("simulate", "call", "--count", "1", "--partition", "7"),
            "--from-live begins with: give both",
        ),
        (
            ("simulate", "call", "--trace", __file__, "--weight", "2"),
            "--weight works only with --count",
        ),
        (("simulate", "call", "--count", "1", "--weight", "0"), "not in the range"),
        (("simulate", "call", "--count", "3", "--run-seconds", "nan"), "at most 31,622,400"),
        (("simulate", "call", "--count", "3", "--run-seconds", "1e9"), "at most 31,622,400"),
    ],
)
def test_what_cannot_run_says_why_with_exit_2(
    call: Call, words: tuple[str, ...], said: str
) -> None:
    asked = call(*words)
    assert (asked.exit_code, said in asked.output) == (2, True), asked.output


@pytest.mark.usefixtures("task")
def test_simulate_moves_time_under_the_declared_limit(call: Call) -> None:
    said = call("simulate", "call", "--count", "5")
    assert said.exit_code == 0, said.output
    assert "5 jobs start, the last after 4.0 min" in said.output
    assert "because too few tokens are left [limit_tokens]" in said.output


@pytest.mark.usefixtures("task")
def test_simulate_tries_another_limit(call: Call) -> None:
    words = ("simulate", "call", "--count", "5", "--rate", "1", "--per", "10", "--json")
    found = json.loads(call(*words).output)
    assert found["format"] == 1
    assert found["started"] == 5
    assert "\n1 job starts, " in call("simulate", "call", "--count", "1").output
    assert found["last_start_seconds"] == pytest.approx(40, abs=0.01)
    assert sum(step["started"] for step in found["steps"]) == 5


@pytest.mark.parametrize("weight", ["size", lambda arguments: arguments["size"]])
def test_simulate_says_when_it_assumes_a_weight(call: Call, limited: Limited, weight: Any) -> None:
    limited(concurrency=6, weight=weight, partition=None)
    words = ("simulate", "call", "--count", "6")
    assert "here each job weighs 1; real jobs get their weight from " in call(*words).output
    found = json.loads(call(*words, "--json").output)
    assert (found["weight"], found["is_weight_assumed"], found["most_at_once"]) == (1, True, 6)
    assert found["weight_by"] == "size" or found["weight_by"].endswith("<lambda>()")
    assert "each job weighs" not in call(*words, "--weight", "3").output
    found = json.loads(call(*words, "--weight", "3", "--json").output)
    assert (found["weight"], found["is_weight_assumed"], found["most_at_once"]) == (3, False, 2)
    assert json.loads(call(*words, "--weight", "7", "--json").output)["never"] == 6


def test_simulate_tries_another_weight_than_a_declared_one(call: Call, limited: Limited) -> None:
    limited(concurrency=6, weight=5, partition=None)
    words = ("simulate", "call", "--count", "6", "--concurrency", "4")
    assert call(*words).exit_code == 2
    assert call(*words, "--weight", "2").exit_code == 0


@pytest.mark.usefixtures("task")
def test_simulate_follows_a_trace(call: Call, tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("0\n100\n100\n")
    found = json.loads(call("simulate", "call", "--trace", str(trace), "--json").output)
    assert found["last_start_seconds"] == pytest.approx(160, abs=0.01)
    trace.write_text("0\nsoon\n")
    refused = call("simulate", "call", "--trace", str(trace))
    assert (refused.exit_code, "line 2: 'soon' is not an arrival" in refused.output) == (2, True)


def test_simulate_begins_with_what_waits_now(
    bench: Bench,
    call: Call,
    task: Any,
    commit: Commit,
) -> None:
    job_ids = [commit(task, account=7) for _ in range(3)]
    bench.dispatch("default|api|7")
    bench.claim(job_ids[0])
    words = ("simulate", "call", "--count", "1", "--from-live", "--partition", "7", "--json")
    before = read_clock(bench.connection)
    found = json.loads(call(*words).output)
    after = read_clock(bench.connection)
    # Two wait, one comes: the third token after the one that the first job took.
    assert found["started"] == 3
    third = bench.row("SELECT refilled_at + interval '180 s' AS at FROM opsjobs.buckets")["at"]
    asked = third - timedelta(seconds=found["last_start_seconds"])
    assert before <= asked <= after


def test_what_lies_in_redis_starts_before_what_is_simulated(
    bench: Bench,
    call: Call,
    task: Any,
    commit: Commit,
) -> None:
    commit(task, account=7)
    bench.dispatch("default|api|7")
    words = ("simulate", "call", "--count", "1", "--from-live", "--partition", "7", "--json")
    found = json.loads(call(*words).output)
    assert found["last_start_seconds"] == pytest.approx(60, abs=0.01)


@pytest.mark.usefixtures("task")
def test_a_cooldown_and_its_end_pass_the_door(bench: Bench, call: Call) -> None:
    done = call("cooldown", "api", "--minutes", "30", *REASON)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Cool limiter api down: done\n")
    assert "cools down" in call("list").output
    assert call("cooldown", "api", "--partition", "7", "--minutes", "5", *REASON).exit_code == 0
    said = call("explain", "api", "--partition", "7")
    assert "because it is a test" in said.output
    assert "it cools down [limit_cooldown]" in said.output
    assert call("clear", "api", *REASON).exit_code == 0
    assert "running, 1 partition cools down\n" in call("list").output
    found = bench.rows("SELECT action, subject, via FROM opsjobs.audit_events ORDER BY sequence")
    assert [(row["action"], row["subject"]) for row in found] == [
        ("limiter.cooldown", "limiter/api"),
        ("limiter.cooldown", "limiter/api/7"),
        ("limiter.clear", "limiter/api"),
    ]
    assert {row["via"] for row in found} == {"cli"}


@pytest.mark.usefixtures("task")
def test_a_dry_run_writes_nothing(bench: Bench, call: Call) -> None:
    asked = call("cooldown", "api", "--minutes", "30", "--dry-run")
    assert (asked.exit_code, "cooldown: – → until 20" in asked.output) == (0, True)
    assert bench.row("SELECT cooldown_until FROM opsjobs.limiters")["cooldown_until"] is None
    assert call("clear", "api", "--dry-run").exit_code == 1
