"""What a function does to its process harms its own job only; what stops one job stops no other."""

from __future__ import annotations

import random
import re
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil
import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.errors import ActionRefused
from flask_opsjobs.jobs.record.task import Call, Task
from tests.support.deadly import WAYS
from tests.support.host import db as host_db
from tests.support.host import die_of, hold, measure, misbehave, note_run
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import HASTE, Site
from .test_pool import reserved, runs

pytestmark = pytest.mark.chaos

# How the first attempt ends, and what is said of it.
ENDS = {
    "exit": ("died", "exited with 3 before its function returned"),
    "kill": ("died", "killed by SIGKILL"),
    "real-time signal": ("died", "killed by signal 35"),
    "segfault": ("died", "killed by SIGSEGV"),
    "abort": ("died", "killed by SIGABRT"),
    "memory": ("raised", "MemoryError"),
    "files": ("raised", "OSError: [Errno 24] Too many open files: '/dev/null'"),
    "fork": ("returned", None),
}


@pytest.fixture(scope="module")
def worker(shared_site: Site) -> Iterator[Child]:
    """The one worker of these tests, beside the loops."""
    shared_site.moving_loops()
    worker = shared_site.worker("--processes", "2", "default", LOG_LEVEL="INFO")
    yield worker
    assert worker.terminate() == 0
    assert "Traceback" not in worker.log.replace("a child of the worker broke off", "")


def enqueue(site: Site, calls: Sequence[tuple[Task | Call, dict[str, Any]]]) -> list[int]:
    """Record these jobs in one transaction; their ids."""
    with site.app.app_context():
        ids = [task.enqueue(**args).id for task, args in calls]
        host_db.session.commit()
    return ids


def wait_until_ended(site: Site, jobs: Sequence[int], timeout: float = 60) -> None:
    left = "SELECT count(*) FROM opsjobs.jobs WHERE id = ANY (%s) AND ended_at IS NULL"
    wait_until(lambda: site.rows(left, list(jobs)) == [(0,)], timeout, what=f"ends of {jobs}")


def attempts(site: Site, jobs: Sequence[int]) -> dict[int, list[tuple[str, str | None]]]:
    """By job how each attempt ended, and why."""
    found: dict[int, list[tuple[str, str | None]]] = defaultdict(list)
    for job_id, outcome, why in site.rows(
        "SELECT job_id, outcome, coalesce(cause_of_death, error) FROM opsjobs.attempts"
        " WHERE job_id = ANY (%s) ORDER BY job_id, attempt",
        list(jobs),
    ):
        found[job_id].append((outcome, why))
    return found


def all_returned(site: Site, jobs: Sequence[int]) -> bool:
    """Whether each of them had one attempt, which returned."""
    return attempts(site, jobs) == {job_id: [("returned", None)] for job_id in jobs}


def test_each_death_costs_its_own_job_one_attempt(
    shared_site: Site, worker: Child, tmp_path: Path, jobs_of_pool: int
) -> None:
    path, count = tmp_path / "ran", jobs_of_pool // 5
    calls: list[tuple[Task, dict[str, Any]]] = [(note_run, {"path": str(path)})] * count
    # At least one of each kind, and three of a hundred.
    ways = list(islice(cycle(WAYS), max(len(WAYS), count * 3 // 100)))
    for place, how in enumerate(ways):
        call = misbehave, {"path": str(path), "how": how}
        calls.insert(place * len(calls) // len(ways), call)
    jobs = enqueue(shared_site, calls)
    wait_until_ended(shared_site, jobs)
    found, ran = attempts(shared_site, jobs), runs(path)
    for job_id, (task, args) in zip(jobs, calls, strict=True):
        if task is note_run:
            assert found[job_id] == [("returned", None)]
            assert ran[job_id, 1] == 1
            continue
        how = args["how"]
        again = [] if how == "fork" else [("returned", None)]
        assert (how, found[job_id]) == (how, [ENDS[how], *again])
        assert [ran[job_id, attempt] for attempt in (1, 2)] == [1, len(again)]
    assert set(ran.values()) == {1}


def test_a_child_that_is_killed_leaves_its_progress(shared_site: Site, worker: Child) -> None:
    (job,) = enqueue(shared_site, [(die_of, {"number": signal.SIGKILL})])
    wait_until_ended(shared_site, [job])
    told = "SELECT progress_done, progress_total, progress_note FROM opsjobs.attempts WHERE job_id = %s"
    assert shared_site.rows(told, job) == [(3, 10, "third")]


def wait_for(seconds: float) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began >= seconds, seconds + 1, every=0.001)


def recorded_after(worker: Child) -> list[tuple[int, float]]:
    """Of each job that somebody wished to stop, how long after its worker knew it the end was recorded."""
    says = r"job (\d+): its end was recorded ([\d.]+) s after this worker knew"
    return [(int(job_id), float(seconds)) for job_id, seconds in re.findall(says, worker.log)]


@pytest.mark.slow
def test_a_cancel_ends_its_own_job_only(
    shared_site: Site, worker: Child, tmp_path: Path, jobs_of_pool: int, is_long: bool
) -> None:
    """Of running, reserved, just begun and just ended jobs, each at a random moment."""
    path, dice = tmp_path / "ran", random.Random(6)
    wished: list[int] = []
    jobs: list[int] = []
    why: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
    operator = Operator(shared_site.app.extensions["opsjobs"])
    # One of them surely runs, also where the others wait for a processor.
    jobs += enqueue(shared_site, [(note_run, {"path": str(path), "seconds": 60})])
    wait_until(lambda: runs(path)[jobs[0], 1] == 1, 20)
    operator.cancel(jobs[0], **why)
    wished += jobs
    while len(wished) < (1000 if is_long else jobs_of_pool // 40):
        calls = [(note_run, {"path": str(path), "seconds": dice.random() * 0.06}) for _ in range(8)]
        new = enqueue(shared_site, calls)
        jobs += new
        for job_id in dice.sample(new, 4):
            wait_for(dice.random() * 0.04)
            with suppress(ActionRefused):  # it has ended
                operator.cancel(job_id, **why)
                wished.append(job_id)
    wait_until_ended(shared_site, jobs)
    found, ran = attempts(shared_site, jobs), runs(path)
    states = dict(shared_site.rows("SELECT id, state FROM opsjobs.jobs WHERE id = ANY (%s)", jobs))
    kinds: Counter[str] = Counter()
    for job_id in jobs:
        outcomes = [outcome for outcome, _ in found[job_id]]
        kinds[f"{states[job_id]} {outcomes}"] += 1
        if states[job_id] == "finished":
            assert outcomes == ["returned"]
            assert ran[job_id, 1] == 1
        else:
            assert job_id in wished
            assert states[job_id] == "canceled"
            assert outcomes in ([], ["canceled"]), "one outcome, or it had not begun"
            assert ran[job_id, 1] <= len(outcomes)
    assert set(ran.values()) == {1}
    took = shared_site.rows(
        "SELECT extract(epoch FROM a.ended_at - j.cancel_requested_at)::float8"
        " FROM opsjobs.jobs j JOIN opsjobs.attempts a ON a.job_id = j.id"
        " WHERE j.id = ANY (%s) AND a.outcome = 'canceled' ORDER BY 1",
        jobs,
    )
    median, most = took[len(took) // 2][0], took[-1][0]
    print(f"{dict(kinds)}; from the wish to the end, median {median:.3f} s, at most {most:.3f} s")
    known = sorted(seconds for job_id, seconds in recorded_after(worker) if job_id in jobs)
    stopped = sum(kinds[kind] for kind in kinds if kind.endswith("['canceled']"))
    assert len(known) >= stopped > 0, "the worker says it of each that it stopped"
    late = sum(seconds > 0.1 for seconds in known)
    print(
        f"{len(known)} of them: from the wish known to the record, median"
        f" {known[len(known) // 2]:.3f} s, at most {known[-1]:.3f} s, {late} over 0.1 s"
    )
    assert median < (0.1 if is_long else 1.0)
    assert known[-1] < (0.1 if is_long else 1.0)


def test_a_time_limit_ends_its_own_job_only(
    shared_site: Site, worker: Child, tmp_path: Path, is_long: bool
) -> None:
    """Of jobs that end at about their limit."""
    path, dice = tmp_path / "ran", random.Random(7)
    limited, count = note_run.options(timeout=1, max_attempts=1), 1000 if is_long else 6
    other = shared_site.worker("--processes", "8" if is_long else "4", "default", "--no-scheduler")
    calls = [
        (limited, {"path": str(path), "seconds": 0.97 + dice.random() * 0.04}) for _ in range(count)
    ]
    jobs = enqueue(shared_site, calls)
    wait_until_ended(shared_site, jobs, 300)
    assert other.terminate() == 0
    outcomes = attempts(shared_site, jobs)
    kinds = Counter(outcome for found in outcomes.values() for outcome, _ in found)
    took = "SELECT max(extract(epoch FROM ended_at - started_at))::float8 FROM opsjobs.attempts"
    ((most,),) = shared_site.rows(f"{took} WHERE job_id = ANY (%s)", jobs)
    print(f"jobs that end at about their time limit: {dict(kinds)}; the longest ran {most:.3f} s")
    assert set(kinds) <= {"returned", "timed_out"}
    assert [len(outcomes[job_id]) for job_id in jobs] == [1] * len(jobs)
    assert runs(path) == dict.fromkeys([(job_id, 1) for job_id in jobs], 1)
    assert most < (1.1 if is_long else 2.0)


def test_a_frozen_child_begins_nothing_late(
    shared_site: Site, worker: Child, tmp_path: Path
) -> None:
    """One stands still in the middle of a job, one before it has received any. Nobody can run the others."""
    path, gate = tmp_path / "ran", tmp_path / "gate"
    (held,) = enqueue(shared_site, [(hold, {"gate": str(gate)})])
    wait_until(Path(f"{gate}.begun").exists, 20)
    children = worker.job_children()
    for child in children:
        child.suspend()
    jobs = enqueue(shared_site, [(note_run, {"path": str(path)})] * 2)
    wait_for(HASTE["OPSJOBS_MISSING_SECONDS"] / 4 + 0.1)
    assert not path.exists()
    wait_until(lambda: reserved(shared_site) == 0, what="what no child has received is given back")
    for child in children:
        # The worker ends one that does not begin what it was given.
        with suppress(psutil.NoSuchProcess):
            child.resume()
    gate.touch()
    wait_until_ended(shared_site, [held, *jobs])
    assert runs(path) == dict.fromkeys([(job_id, 1) for job_id in jobs], 1)
    assert all_returned(shared_site, [held, *jobs])


@pytest.mark.slow
def test_large_arguments_need_little_memory(
    shared_site: Site, worker: Child, jobs_of_pool: int, is_long: bool
) -> None:
    process, count = psutil.Process(worker.pid), 1000 if is_long else jobs_of_pool // 30
    before = most = process.memory_info().rss
    jobs = enqueue(shared_site, [(measure, {"text": "x" * 990_000})] * count)

    def have_ended() -> bool:
        nonlocal most
        most = max(most, process.memory_info().rss)
        left = "SELECT count(*) FROM opsjobs.jobs WHERE id = ANY (%s) AND ended_at IS NULL"
        return shared_site.rows(left, jobs) == [(0,)]

    wait_until(have_ended, 120, every=0.02)
    assert all_returned(shared_site, jobs)
    print(f"{count} jobs of 1 MB: the parent needs {(most - before) / 2**20:.0f} MB more")
    assert most - before < 64 * 2**20
