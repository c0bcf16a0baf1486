"""Deploy markers: by a command or by the first worker of a version, in the order of their ids."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import InvalidDeploy
from flask_opsjobs.failures import deploys
from flask_opsjobs.failures.count import infer_deploy_deaths
from flask_opsjobs.jobs.failure_key import key_of_end
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

from .conftest import FailureBench


def mark(bench: Bench, version: str, **said: Any) -> tuple[int, bool]:
    marker, is_new = deploys.mark(bench.connection, version, read_clock(bench.connection), **said)
    return marker.id, is_new


def of_worker(bench: Bench, version: str | None) -> int | None:
    return deploys.find_or_mark(bench.connection, version, read_clock(bench.connection))


def rows(bench: Bench) -> list[tuple[Any, ...]]:
    found = bench.rows("SELECT * FROM opsjobs.deploys ORDER BY id")
    return [(row["version"], row["source"], row["actor"], row["note"]) for row in found]


def test_the_same_version_twice_is_one_deploy(bench: Bench) -> None:
    first, is_new = mark(bench, "1", actor="ada", note="adds a button")
    assert (mark(bench, "1", actor="bob"), is_new) == ((first, False), True)
    assert rows(bench) == [("1", "command", "bob", "adds a button")]


def test_a_rollback_is_a_deploy_of_its_own(bench: Bench) -> None:
    ids = [mark(bench, version)[0] for version in ("1", "2", "1")]
    assert ids == sorted(set(ids))
    assert of_worker(bench, "1") == ids[2]
    assert of_worker(bench, "2") == ids[1]


def test_the_first_worker_of_a_version_marks_it(bench: Bench) -> None:
    first = of_worker(bench, "1")
    assert of_worker(bench, "1") == first
    second = of_worker(bench, "2")
    assert of_worker(bench, "1") == first != second
    assert rows(bench) == [("1", "worker", None, None), ("2", "worker", None, None)]
    # The command comes after the worker.
    assert mark(bench, "2", actor="ada", note="late") == (second, False)
    assert rows(bench)[1] == ("2", "command", "ada", "late")


def test_a_worker_without_a_version_runs_the_newest_deploy(bench: Bench) -> None:
    assert of_worker(bench, None) is None
    marked, _ = mark(bench, "1")
    assert of_worker(bench, None) == marked


def test_workers_that_start_at_once_mark_one_deploy(make_bench: MakeBench) -> None:
    one, two, three = (make_bench() for _ in range(3))
    answers = race(
        *(lambda each=each: of_worker(each, "1") for each in (one, two)),
        lambda: mark(three, "1")[0],
    )
    assert len(set(answers)) == 1
    assert len(rows(one)) == 1


def test_the_order_is_that_of_the_ids_when_the_clock_was_set_back(bench: Bench) -> None:
    now = read_clock(bench.connection)
    first, _ = deploys.mark(bench.connection, "1", now)
    second, _ = deploys.mark(bench.connection, "2", now - timedelta(hours=5))
    assert second.id > first.id
    assert second.at < first.at
    assert of_worker(bench, None) == second.id


@pytest.mark.parametrize("version", ["", " 1", "1\n2", "v" * 201, "x" * 10_000, "\x1b[31m", "a\0"])
def test_a_version_that_cannot_be_shown_is_refused(bench: Bench, version: str) -> None:
    with pytest.raises(InvalidDeploy, match="printable text of 1 to 200 characters"):
        mark(bench, version)
    assert rows(bench) == []


@pytest.mark.parametrize("version", ["this", "next"])
def test_a_version_that_means_another_deploy_is_refused(bench: Bench, version: str) -> None:
    with pytest.raises(InvalidDeploy, match=f"no version is called '{version}', because failures"):
        mark(bench, version)
    assert rows(bench) == []


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"note": "x" * 10_000}, "a note has at most 1,000 characters"),
        ({"note": "a\0"}, "a note has a NUL character"),
        ({"note": "\udcff"}, "a note has one half of a surrogate pair"),
        ({"actor": "x" * 10_000}, "an actor has at most 200 characters"),
        ({"actor": "\udcff"}, "an actor has one half of a surrogate pair"),
    ],
)
def test_what_cannot_be_stored_is_refused(bench: Bench, said: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidDeploy, match=says):
        mark(bench, "1", **said)
    assert rows(bench) == []


def test_the_command(app: Flask, bench: Bench) -> None:
    def call(*words: str) -> Any:
        return app.test_cli_runner().invoke(args=["opsjobs", "deployed", *words])

    done = call("2026.11.3", "--note", "signs webhooks", "--actor", "ada")
    assert (done.exit_code, done.output) == (0, "deploy 1: 2026.11.3 is marked\n")
    again = call("2026.11.3", "--json", "--actor", "ada")
    assert again.exit_code == 0
    assert json.loads(again.output) | {"at": ""} == {
        "format": 1,
        "deploy": 1,
        "version": "2026.11.3",
        "at": "",
        "new": False,
    }
    assert "is marked already, since 20" in call("2026.11.3").output
    refused = call("x" * 10_000)
    assert refused.exit_code == 2
    assert "this one has 10,000" in refused.output
    refused = call("2026.11.4", "--note", "\udcff")  # as Python reads a byte that is no UTF-8
    assert (refused.exit_code, "surrogate" in refused.output) == (2, True)
    assert rows(bench)[0][:2] == ("2026.11.3", "command")
    assert len(rows(bench)) == 1


# --- deaths around a deploy


def death_of(failing: FailureBench, job_id: int) -> tuple[str, Any]:
    attempt = failing.bench.attempt(job_id)
    return attempt["death"], attempt["death_facts"]


def infer(failing: FailureBench) -> int:
    with failing.bench.connection.transaction():
        return infer_deploy_deaths(failing.bench.connection, failing.now)


def kill(failing: FailureBench, on: Bench, ago: timedelta = timedelta(), **changes: Any) -> int:
    died = {
        "kind": "died",
        "error": "killed",
        "death": "signal",
        "death_facts": {"signal": "SIGTERM"},
    }
    return failing.fail(on=on, ago=ago, **died | changes)


def test_a_kill_around_a_deploy_is_named_after_it(failing: FailureBench) -> None:
    old = failing.start_worker()
    counted, uncounted = kill(failing, old, timedelta(minutes=9)), kill(failing, old)
    failing.bench.connection.execute(
        "UPDATE opsjobs.attempts SET is_counted = true WHERE job_id = %s", (counted,)
    )
    failing.bench.connection.execute(
        "INSERT INTO opsjobs.task_deaths SELECT task, date_trunc('day', a.ended_at, 'UTC'), 'signal', 1"
        " FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = job_id WHERE job_id = %s",
        (counted,),
    )
    deploy, _ = mark(failing.bench, "2")
    assert infer(failing) == 0, "no worker of it was seen"
    failing.start_worker(deploy)
    assert infer(failing) == 2
    assert infer(failing) == 0
    facts = {"signal": "SIGTERM", "was": "signal", "deploy": deploy, "version": "2"}
    assert death_of(failing, counted) == ("deploy", facts)
    key = failing.bench.attempt(uncounted)["failure_key"]
    (task,) = failing.bench.rows("SELECT task FROM opsjobs.jobs WHERE id = %s", uncounted)
    assert key.hex() == key_of_end(task["task"], "died", "deploy")
    assert failing.bench.attempt(counted)["failure_key"] != key
    sums = failing.bench.rows(
        "SELECT death, sum(number)::int AS n FROM opsjobs.task_deaths GROUP BY 1"
    )
    assert {row["death"]: row["n"] for row in sums} == {"signal": 0, "deploy": 1}


@pytest.mark.parametrize(
    ("ago", "changes"),
    [
        (timedelta(minutes=11), {}),
        (timedelta(), {"death": "out_of_memory"}),
        (timedelta(), {"death": "exited"}),
        (timedelta(), {"death": "stopped"}),
    ],
)
def test_another_death_keeps_its_cause(
    failing: FailureBench, ago: timedelta, changes: dict[str, Any]
) -> None:
    job_id = kill(failing, failing.start_worker(), ago, **changes)
    deploy, _ = mark(failing.bench, "2")
    failing.start_worker(deploy)
    assert infer(failing) == 0
    assert death_of(failing, job_id)[0] == changes.get("death", "signal")


def test_a_death_of_the_new_code_is_not_of_its_deploy(failing: FailureBench) -> None:
    deploy, _ = mark(failing.bench, "2")
    kill(failing, failing.start_worker(deploy))
    assert infer(failing) == 0


def test_a_worker_of_another_queue_is_no_successor(
    failing: FailureBench, make_bench: MakeBench
) -> None:
    kill(failing, failing.start_worker())
    deploy, _ = mark(failing.bench, "2")
    other = make_bench(queues=("mail",))
    other.rows(
        "UPDATE opsjobs.workers SET deploy_id = %s WHERE id = %s RETURNING 1",
        deploy,
        other.worker_id,
    )
    assert infer(failing) == 0


def test_a_death_just_after_the_marker_counts(failing: FailureBench) -> None:
    old = failing.start_worker()
    deploy, _ = mark(failing.bench, "2")
    failing.start_worker(deploy)
    job_id = kill(failing, old)
    failing.bench.connection.execute(
        "UPDATE opsjobs.deploys SET at = at - interval '1 min' WHERE id = %s", (deploy,)
    )
    assert infer(failing) == 1
    assert death_of(failing, job_id)[0] == "deploy"
    later = kill(failing, old)
    failing.bench.connection.execute(
        "UPDATE opsjobs.deploys SET at = at - interval '2 min' WHERE id = %s", (deploy,)
    )
    assert infer(failing) == 0
    assert death_of(failing, later)[0] == "signal"
