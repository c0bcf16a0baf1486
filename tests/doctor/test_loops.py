"""The checks of the loops, with passes of real loops."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from tests.doctor.conftest import Ask
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def _pass(bench: Bench, *names: str) -> None:
    for loop in LOOPS:
        if not names or loop.name in names:
            Runner(loop, bench.host, "one").run_once(bench.connection)


def _age(bench: Bench, *names: str) -> None:
    bench.connection.execute(
        """UPDATE opsjobs.loop_runs SET started_at = started_at - interval '2 days',
               last_at = last_at - interval '2 days' WHERE loop = ANY (%s)""",
        [list(names)],
    )


def test_loops_that_never_ran_all_silent_and_some(bench: Bench, ask: Ask) -> None:
    assert ask("loops.awake").sentence == "No loop has ever run."
    _pass(bench, "watch", "stage")
    assert ask("loops.awake").state == "ok"
    _age(bench, "watch")
    some = ask("loops.awake")
    assert (some.state, some.sentence) == ("warning", "1 loop is silent: watch.")
    _age(bench, "stage")
    none = ask("loops.awake")
    assert (none.state, none.sentence, none.run) == ("error", "No loop runs.", "flask opsjobs run")


def test_a_pass_that_is_longer_than_its_interval(bench: Bench, ask: Ask) -> None:
    _pass(bench, "watch")
    assert ask("loops.slow").state == "ok"
    taken = "UPDATE opsjobs.loop_runs SET took_seconds = every_seconds * %s"
    bench.connection.execute(taken, [0.9])
    assert ask("loops.slow").state == "ok"
    bench.connection.execute(taken, [1.5])
    found = ask("loops.slow")
    assert (found.state, "watch took" in found.evidence) == ("warning", True)


def test_charts_that_are_late(bench: Bench, ask: Ask) -> None:
    assert ask("loops.rollup_lag").state == "ok", "nothing was counted yet"
    _pass(bench, "roll_up")
    back = """UPDATE opsjobs.rollup_position SET counted_from = now() - interval '1 hour',
        counted_until = now() - interval '1 min' * %s"""
    bench.connection.execute(back, [4])
    assert ask("loops.rollup_lag").state == "ok"
    bench.connection.execute(back, [7])
    assert ask("loops.rollup_lag").state == "warning"
    _pass(bench, "roll_up")
    assert ask("loops.rollup_lag").state == "ok"


def test_entries_without_the_loop_cron(bench: Bench, note: Task, ask: Ask) -> None:
    _pass(bench, "watch")
    assert ask("loops.cron").state == "ok", "there are no entries"
    entry: dict[str, Any] = {"task": note.name, "expression": "0 3 * * *", "zone": None}
    entry |= {"overlap": None, "catch_up": None, "args": {"text": ""}}
    operator = Operator(bench.host)
    operator.create_cron("nightly", entry, **WHY, authorize=False)
    found = ask("loops.cron")
    assert (found.state, "1 cron entry" in found.sentence) == ("error", True)
    _pass(bench, "cron")
    assert ask("loops.cron").state == "ok"
    _age(bench, "cron")
    assert ask("loops.cron").state == "error"
