"""A child that Linux killed because memory was short: the attempt says so, where the system tells it."""

from __future__ import annotations

from pathlib import Path

from flask_opsjobs.engine.worker.children import Death, OutOfMemory
from flask_opsjobs.engine.worker.frames import JobOrder
from flask_opsjobs.engine.worker.places import Sent, outcome_of_death
from flask_opsjobs.engine.worker.reserved import ReservedJob
from flask_opsjobs.jobs.failure_key import key_of_end

ORDER = JobOrder(
    id=1,
    dispatch_no=1,
    task="grow",
    queue="default",
    args="{}",
    meta="{}",
    tags=[],
    attempt=1,
    max_attempts=1,
    timeout_seconds=None,
    deadline_at=None,
    created_at=0.0,
    claimed_at=0.0,
    begin_before=0.0,
)


def events_of_this_process(root: Path) -> Path:
    """The file in which Linux counts such kills in this process's group, as if `root` were the groups'."""
    place = Path("/proc/self/cgroup").read_text().rsplit("::", 1)[-1].strip()
    folder = Path(root, place.lstrip("/"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "memory.events"


def test_a_kill_of_linux_is_seen_by_its_count(tmp_path: Path) -> None:
    events = events_of_this_process(tmp_path)
    events.write_text("low 0\nhigh 0\nmax 5\noom 1\noom_kill 2\n")
    child = OutOfMemory(tmp_path)
    assert not child.count_kills()
    events.write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\n")
    assert child.count_kills() == 1
    assert not OutOfMemory(tmp_path).count_kills(), "the next child does not count it"


def test_without_a_count_nothing_is_said(tmp_path: Path) -> None:
    child = OutOfMemory(tmp_path)
    assert not child.count_kills()
    events_of_this_process(tmp_path).write_text("oom_kill 1\n")
    assert not child.count_kills(), "what it was before is not known"


def test_the_limit_of_the_memory_is_read_where_there_is_one(tmp_path: Path) -> None:
    limit = events_of_this_process(tmp_path).with_name("memory.max")
    child = OutOfMemory(tmp_path)
    assert child.read_limit_kb() is None
    limit.write_text("max\n")
    assert child.read_limit_kb() is None
    limit.write_text("536870912\n")
    assert child.read_limit_kb() == 524_288


def test_the_attempt_names_the_cause() -> None:
    job = ReservedJob(ORDER, place=0, priority=0, due_at=0.0)
    death = Death(
        "killed by SIGKILL", by_signal=9, max_rss_kb=700, is_out_of_memory=True, limit_kb=512
    )
    outcome = outcome_of_death(Sent(0.0, job), death, None, {})
    assert outcome.kind == "died"
    assert outcome.cause_of_death == "out of memory, killed by SIGKILL"
    assert outcome.death == "out_of_memory"
    assert outcome.death_facts == {"signal": "SIGKILL", "peak_kb": 700, "limit_kb": 512}
    assert outcome.failure_key == key_of_end("grow", "died", "out_of_memory")
