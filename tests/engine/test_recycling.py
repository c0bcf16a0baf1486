"""What a job leaves behind in its process: the next job sees nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from flask import Flask

from flask_opsjobs.cli import opsjobs as commands
from flask_opsjobs.engine.worker.hygiene import ConnectionHygiene, changes_session
from flask_opsjobs.engine.worker.recycling import Recycling, RecyclingRules
from flask_opsjobs.host import Host
from tests.engine.site import enqueue, rows, state_of
from tests.support.host import db, give, hold
from tests.support.leftovers import IN_DATABASE, LEAVE, gain, leave, look, pass_on, wait_and_ask
from tests.support.processes import Children
from tests.support.waiting import wait_until
from tests.web.every import soup

WORKER = ("-m", "flask", "--app", "tests.support.leftovers", "opsjobs", "worker")
HEARTBEAT = {"TEST_CONFIG_OPSJOBS_HEARTBEAT_SECONDS": "0.2"}


@pytest.fixture
def in_order(site: Flask) -> Flask:
    """Jobs stay in Postgres, from where a worker takes them in order: none takes the way through Redis."""
    site.extensions["opsjobs"].dispatcher = None
    return site


def outputs(job_ids: Sequence[int]) -> list[Any]:
    """The outputs of jobs, when all have finished."""

    def have_ended() -> bool:
        return not rows("SELECT 1 FROM opsjobs.jobs WHERE state NOT IN ('finished', 'failed')")

    wait_until(have_ended, 60)
    assert rows("SELECT error FROM opsjobs.attempts WHERE error IS NOT NULL") == []
    found = dict(rows("SELECT job_id, value FROM opsjobs.outputs"))
    return [found[job_id] for job_id in job_ids]


def left() -> set[tuple[str, str | None]]:
    """The kinds of reasons why children left, and whose jobs are to blame, as the heartbeat tells."""
    return {
        (reason["kind"], reason["task"])
        for (reasons,) in rows("SELECT left_children FROM opsjobs.workers")
        for reason in reasons
    }


class Pair:
    """A job that leaves something behind, and the two after it that look for that.

    One of them waits already while the first job runs: it may have been sent ahead to the same child. The
    other one is enqueued when both have ended, so nothing runs between them and it.
    """

    def __init__(self, what: str) -> None:
        first, ahead = (task.enqueue(what=what).id for task in (leave, look))
        db.session.commit()
        (self.first_pid, self.first_backend), (*_, self.seen_ahead) = outputs([first, ahead])
        ((self.pid, self.backend, self.seen),) = outputs([enqueue(look, what=what)])

    @property
    def is_same_process(self) -> bool:
        return self.first_pid == self.pid

    @property
    def is_same_connection(self) -> bool:
        return self.first_backend == self.backend


def run_pairs(
    kinds: Sequence[str], start: Callable[[], object]
) -> tuple[dict[str, Pair], dict[str, Any]]:
    """Leave each kind behind, and look for it in the next job; also what was seen before all that."""
    looks = {kind: enqueue(look, what=kind) for kind in kinds}
    start()
    before = dict(zip(looks, [seen for *_, seen in outputs(list(looks.values()))], strict=True))
    return {kind: Pair(kind) for kind in kinds}, before


@pytest.mark.slow
@pytest.mark.processes
def test_the_next_job_sees_nothing_of_what_was_left_in_the_process(
    site: object, children: Children
) -> None:
    kinds = [kind for kind in LEAVE if kind != "tracker"]
    pairs, before = run_pairs(kinds, lambda: children.python(*WORKER, env=HEARTBEAT))
    assert {kind: pair.seen_ahead for kind, pair in pairs.items()} == before
    assert {kind: pair.seen for kind, pair in pairs.items()} == before
    assert [kind for kind, pair in pairs.items() if pair.is_same_process] == ["nothing"]
    blamed = {(kind, leave.name) for kind in kinds if kind not in ("nothing", "descriptors")}
    wait_until(lambda: left() == blamed | {("descriptors", None)}, 30)


@pytest.mark.slow
@pytest.mark.processes
def test_the_next_job_sees_nothing_of_what_was_left_in_the_database(
    site: object, children: Children
) -> None:
    pairs, before = run_pairs(list(IN_DATABASE), lambda: children.python(*WORKER, env=HEARTBEAT))
    assert {kind: pair.seen_ahead for kind, pair in pairs.items()} == before
    assert {kind: pair.seen for kind, pair in pairs.items()} == before
    # Where it can be cleaned, the connection is kept. Only who keeps one costs the process.
    cleaned = [kind for kind, pair in pairs.items() if pair.is_same_connection]
    assert cleaned == list(IN_DATABASE)[:5]
    other = [kind for kind, pair in pairs.items() if not pair.is_same_process]
    assert other == ["connection"]
    wait_until(lambda: left() == {("connection", leave.name)}, 30)


@pytest.mark.processes
def test_a_trackers_thread_and_a_hosts_process_stay(
    in_order: object, children: Children, tmp_path: Path
) -> None:
    """A child still performs nearly 1,000 jobs. A process that the hook started keeps its exit status,
    though each job looks for processes.
    """
    path = tmp_path / "hooks"
    first = enqueue(leave, what="tracker")
    give.enqueue_many({"value": number} for number in range(850))
    last = enqueue(look, what="tracker")
    others = [
        job_id for (job_id,) in rows("SELECT id FROM opsjobs.jobs WHERE task = 'give' ORDER BY id")
    ]
    worker = children.python("-c", STARTS_A_PROCESS, str(path))
    pid, _, threads = outputs([last])[0]
    assert outputs([first])[0][0] == pid
    assert "sentry-sdk.BackgroundWorker" in threads
    assert outputs(others) == list(range(850))
    assert worker.terminate() == 0
    assert path.read_text() == "7"
    assert left() == set()


@pytest.mark.processes
def test_a_job_that_enqueues_another_one_keeps_its_process(
    in_order: object, children: Children
) -> None:
    """The other one is dispatched on a connection of ours, which the process keeps."""
    jobs = [enqueue(pass_on) for _ in range(3)]
    children.python(*WORKER, env=HEARTBEAT)
    assert len(set(outputs(jobs))) == 1


@pytest.mark.processes
def test_a_child_that_has_gained_too_much_memory_leaves(
    in_order: object, children: Children
) -> None:
    """The job that took it over the limit has ended. The others run in another process."""
    jobs = [enqueue(gain, megabytes=megabytes) for megabytes in (0, 80, 0, 0)]
    children.python(*WORKER, "--max-memory", "60", env=HEARTBEAT)
    first, second, third, last = outputs(jobs)
    assert first == second
    assert second != third
    assert third == last
    wait_until(lambda: left() == {("memory", None)}, 30)


@pytest.mark.processes
def test_without_a_limit_a_child_performs_all_jobs(in_order: object, children: Children) -> None:
    """By default it would leave after 1,000 at the latest."""
    gain.enqueue_many({"megabytes": 0} for _ in range(1100))
    db.session.commit()
    children.python(*WORKER, "--jobs-per-process", "0", env=HEARTBEAT)
    (pid,) = set(outputs([job_id for (job_id,) in rows("SELECT id FROM opsjobs.jobs")]))
    told = "SELECT pool->'children'->0->'pid', pool->'children'->0->'jobs' FROM opsjobs.workers"
    wait_until(lambda: rows(told) == [(pid, 1100)], 30)
    assert left() == set()


@pytest.mark.processes
def test_with_a_process_for_each_job_the_next_one_is_forked_ahead(
    in_order: object, children: Children, tmp_path: Path
) -> None:
    """While a job runs, the process of the next job is there and waits."""
    gate = tmp_path / "gate"
    # After the first one the worker knows that jobs are short, and takes one ahead.
    jobs = enqueue(gain), enqueue(hold, gate=str(gate)), enqueue(gain)
    worker = children.python("-c", KEEPS_WHAT_IT_TOOK, env=HEARTBEAT)
    wait_until(Path(f"{gate}.begun").exists, 20)
    reserved = "SELECT 1 FROM opsjobs.jobs WHERE id = :job_id AND reserved_by IS NOT NULL"
    wait_until(lambda: rows(reserved, job_id=jobs[2]))
    performed = "SELECT pid FROM opsjobs.attempts WHERE job_id = :job_id"
    ((ended,),) = wait_until(lambda: rows(performed, job_id=jobs[0]))

    def both() -> set[int]:
        """The processes of the jobs that run and wait; that of the first may take a moment to end."""
        found = {child.pid for child in worker.job_children()} - {ended}
        return found if len(found) == 2 else set()

    waiting = wait_until(both)
    assert state_of(jobs[2]) == "queued"
    gate.touch()
    outputs(jobs[2:])
    pids = [pid for (pid,) in rows("SELECT pid FROM opsjobs.attempts ORDER BY job_id")]
    assert len(set(pids)) == 3
    assert set(pids[1:]) == waiting


# Else it gives the next job back while the first one runs for long, and takes it again only after that has
# ended. By then the process after the next one may be there too. RQ's maintenance, which has a process of its
# own, is left out.
KEEPS_WHAT_IT_TOOK = """
import sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import errands, parent
from flask_opsjobs.engine.worker.parent import WorkerOptions
from tests.support.leftovers import create_app

parent.STUCK_SECONDS = 60.0
errands.Errands.maintain_if_due = lambda *_: None
app = create_app()
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions(jobs_per_process=1, with_scheduler=False)))
"""


@pytest.mark.processes
def test_the_page_and_the_command_say_whose_jobs_end_their_processes(
    in_order: Flask, children: Children
) -> None:
    jobs = [enqueue(leave, what="thread") for _ in range(3)]
    children.python(*WORKER, env=HEARTBEAT)
    assert len({pid for pid, _ in outputs(jobs)}) == 3
    says = "3 children left today after leave: the last one left 1 thread behind: uploader."

    def read_notes() -> list[str]:
        page = in_order.test_client().get("/ops/jobs/workers").text
        return [" ".join(note.text.split()) for note in soup(page).select("tr.note")]

    wait_until(lambda: says in read_notes(), 30)
    assert says in in_order.test_cli_runner().invoke(commands, ["workers"]).output


STARTS_A_PROCESS = """
import subprocess, sys
from pathlib import Path
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.host import ChildHooks
from tests.support.leftovers import create_app

def start():
    global helper
    helper = subprocess.Popen(["sh", "-c", "exit 7"])

def leave():
    Path(sys.argv[1]).write_text(str(helper.wait()))

app = create_app()
app.extensions["opsjobs"].child_hooks = ChildHooks(started=start, leaving=leave)
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions()))
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_hook_that_raises_or_hangs_ends_only_its_process(
    site: object, children: Children, tmp_path: Path
) -> None:
    path = tmp_path / "hooks"
    worker = children.python("-c", HOOKS, str(path), env=HEARTBEAT)
    pids = []
    for what in ("nothing", "nothing", "thread", "nothing"):
        ((pid, _),) = outputs([enqueue(leave, what=what)])
        pids.append(pid)
    assert len(set(pids)) == 4
    assert worker.exit_code is None
    wait_until(lambda: left() >= {("hook", leave.name), ("teardown", None)}, 10)
    assert worker.terminate() == 0
    for name in ("started", "leaving"):
        assert f"RuntimeError: {name}" in worker.log
    # It has seen a job, whose error its own may quote.
    assert "the hook after_each_job raised (RuntimeError at " in worker.log
    assert "RuntimeError: after" not in worker.log
    called = [line.split() for line in path.read_text().splitlines()]
    assert [name for name, _ in called].count("started") >= 6, "one raised and one hung"
    of_last = [name for name, pid in called if int(pid) == pids[3]]
    assert of_last == ["started", "after", "leaving"]


@pytest.mark.processes
def test_the_child_of_an_errand_ends_in_its_own_time(
    site: object, children: Children, tmp_path: Path
) -> None:
    """The first child that leaves is the one in which RQ did its maintenance. Its hook may take a while."""
    begun, gate, ended = (tmp_path / name for name in ("begun", "gate", "ended"))
    worker = children.python("-c", MAINTAINS, str(begun), str(gate), str(ended), env=HEARTBEAT)
    wait_until(begun.exists, 30)
    for number in range(3):  # the parent goes on, and looks at its children
        assert outputs([enqueue(give, value=number)]) == [number]
    gate.touch()
    wait_until(ended.exists, 10)
    assert worker.terminate() == 0


MAINTAINS = """
import sys
from pathlib import Path
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import parent
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.host import ChildHooks
from tests.support.leftovers import create_app
from tests.support.waiting import wait_until

parent._GRACE_SECONDS = 60.0
begun, gate, ended = map(Path, sys.argv[1:])

def leave():
    begun.touch()
    wait_until(gate.exists, 60)
    ended.touch()

app = create_app()
app.extensions["opsjobs"].child_hooks = ChildHooks(leaving=leave)
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions(with_scheduler=False)))
"""


@pytest.mark.processes
def test_a_hook_that_exits_is_named_as_the_reason(site: object, children: Children) -> None:
    """SystemExit is no `Exception`. It ends neither the worker nor silently its child."""
    worker = children.python("-c", EXITS_IN_ITS_HOOKS, env=HEARTBEAT)
    assert outputs([enqueue(give, value=1)]) == [1]
    wait_until(lambda: left() == {("hook", None), ("hook", give.name)}, 10)
    assert worker.terminate() == 0


EXITS_IN_ITS_HOOKS = """
import multiprocessing, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.host import ChildHooks
from tests.support.leftovers import create_app

starts = multiprocessing.Value("i", 0)

def start():
    starts.value += 1
    if starts.value == 1:
        sys.exit(3)

app = create_app()
app.extensions["opsjobs"].child_hooks = ChildHooks(start, sys.exit, sys.exit)
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions(with_scheduler=False)))
"""


HOOKS = """
import os, signal, sys
from pathlib import Path
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker import parent
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.host import ChildHooks
from tests.support.leftovers import create_app

parent._GRACE_SECONDS = 1.0
parent._START_SECONDS = 1.5
log = Path(sys.argv[1])

def make(name):
    def hook():
        with log.open("a") as file:
            file.write(f"{name} {os.getpid()}\\n")
        number = log.read_text().count(f"{name} ")
        if number == 1:
            raise RuntimeError(name)
        if number == 2:
            signal.pause()
    return hook

app = create_app()
app.extensions["opsjobs"].child_hooks = ChildHooks(make("started"), make("after"), make("leaving"))
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions()))
"""


def test_children_do_not_all_leave_after_the_same_number_of_jobs() -> None:
    numbers = set()
    for _ in range(50):
        recycling = Recycling(RecyclingRules(jobs=100, memory_mb=None))
        number = 1
        while not recycling.find_reasons("give"):
            number += 1
        numbers.add(number)
    assert len(numbers) > 3
    assert 90 <= min(numbers) <= max(numbers) <= 100


def test_a_child_leaves_when_it_has_gained_much_memory() -> None:
    recycling = Recycling(RecyclingRules(jobs=0, memory_mb=20))
    assert recycling.find_reasons("give") == []
    much = bytearray(50 * 2**20)
    much[::4096] = b"x" * len(much[::4096])
    (reason,) = recycling.find_reasons("give")
    assert reason.kind == "memory"


@pytest.mark.parametrize(
    ("statement", "stays"),
    [
        ("SET ROLE anna", True),
        ("  set search_path to shop", True),
        ("SELECT 1; SET ROLE anna", True),
        ("/* a\nb */ -- c\nSET ROLE anna", True),
        ("RESET ROLE", True),
        ("LISTEN news", True),
        ("PREPARE plan AS SELECT 1", True),
        ("SELECT set_config('role', 'anna', false)", True),
        ("SELECT set_config('role', 'anna', true)", False),
        ("SET LOCAL ROLE anna", False),
        ("SET TRANSACTION READ ONLY", False),
        ("SET CONSTRAINTS ALL DEFERRED", False),
        ("UPDATE users SET name = 'anna'", False),
        ("SELECT 'a; b'", False),
        ("SETTLE", False),
    ],
)
def test_which_statements_stay_in_a_session(statement: str, stays: bool) -> None:
    assert changes_session(statement) is stays


def test_connections_are_watched_from_before_the_fork_and_as_long_as_the_worker_runs(
    host: Host,
) -> None:
    hygiene = ConnectionHygiene()
    with hygiene.watching():
        with host.engine.connect():
            assert not hygiene.clean()
            # A child that is forked now has no connection in use.
            hygiene.forget()
            assert hygiene.clean()
            with host.engine.connect():
                assert not hygiene.clean()
        assert hygiene.clean()
    with host.engine.connect():
        assert hygiene.clean()


@pytest.mark.processes
def test_async_jobs_run_one_after_another_and_leave_nothing_behind(
    site: object, children: Children
) -> None:
    jobs = [enqueue(wait_and_ask) for _ in range(5)]
    children.python(*WORKER, env=HEARTBEAT)
    # A worker that waits long for its child gives jobs back, and may run them after jobs of a later take.
    outputs(jobs)
    late = enqueue(wait_and_ask.options(timeout=1), for_ever=True)
    last = enqueue(wait_and_ask)
    wait_until(lambda: state_of(last) == "finished" and state_of(late) == "failed", 30)
    found = dict(rows("SELECT job_id, value FROM opsjobs.outputs"))
    assert len({pid for pid, *_ in (found[job_id] for job_id in jobs)}) == 1
    for job_id in (*jobs, last):
        assert found[job_id][1:] == [job_id, job_id, True]
    outcome = "SELECT outcome FROM opsjobs.attempts WHERE job_id = :id"
    assert rows(outcome, id=late) == [("timed_out",)]
    wait_until(lambda: left() == {("timed_out", wait_and_ask.name)}, 30)


@pytest.mark.processes
def test_a_child_that_leaves_slowly_keeps_no_job_waiting(
    in_order: object, children: Children, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = [enqueue(leave, what="thread"), *(enqueue(give) for _ in range(6))]
    worker = children.python("-c", LEAVES_SLOWLY, str(gate))
    (pid, _), *_ = outputs(jobs)
    assert psutil.pid_exists(pid), "it still leaves"
    gate.touch()
    assert worker.terminate() == 0


LEAVES_SLOWLY = """
import sys, threading
from pathlib import Path
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import WorkerOptions
from flask_opsjobs.host import ChildHooks
from tests.support.leftovers import create_app
from tests.support.waiting import wait_until

def clean_up():
    # Meanwhile the parent, which has the outcome, sends the next job.
    threading.Event().wait(0.05)

def leave():
    wait_until(Path(sys.argv[1]).exists, 60)

app = create_app()
app.extensions["opsjobs"].child_hooks = ChildHooks(after_each_job=clean_up, leaving=leave)
app.app_context().push()
sys.exit(run(app, ["default"], WorkerOptions(processes=2)))
"""


@pytest.mark.processes
def test_a_child_is_killed_before_its_parent_and_shares_its_memory(
    in_order: object, children: Children
) -> None:
    job_id = enqueue(look, what="linux")
    children.python(*WORKER)
    (_, _, (score, frozen)) = outputs([job_id])[0]
    assert score == "500"
    assert frozen > 10_000
