"""A worker runs at full speed for as long as `--soak-minutes` says: neither it nor its children grow."""

from __future__ import annotations

import faulthandler
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rq import Queue

from tests.support.host import add, backend_pid, db, fail_until, measure
from tests.support.processes import Child
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

# The worker always has so many due jobs.
BACKLOG = 4000
EVERY_SECONDS = 3.0
DUE = "SELECT count(*) FROM opsjobs.jobs WHERE state = 'available'"
ENDED = "SELECT coalesce(max(id), 0) FROM opsjobs.jobs"


@dataclass(frozen=True)
class Minute:
    """What a minute of the worker was like: memory in MB, descriptors, threads.

    The parent shares its memory with its children until it writes to a page, so what it shares with nobody
    changes with each fork. Its memory is all that it has written to; that of a child what it has for itself.
    """

    jobs_a_second: float
    parent_mb: float
    parent_descriptors: int
    parent_threads: int
    child_mb: float
    child_descriptors: int
    children: int

    def __str__(self) -> str:
        return (
            f"{self.jobs_a_second:5.0f} jobs/s; parent {self.parent_mb:.1f} MB,"
            f" {self.parent_descriptors} descriptors, {self.parent_threads} threads;"
            f" largest of {self.children} children {self.child_mb:.1f} MB,"
            f" {self.child_descriptors} descriptors"
        )


def written_memory_mb(pid: int) -> float:
    """The memory that a process, or one that it was forked from, has written to."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return int(found) / 1024


def own_memory_mb(pid: int) -> float:
    """The memory that a process shares with no other one."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def fill(site: Site) -> None:
    """Enqueue what is missing: short jobs, jobs with an output, with a query, with a retry; a plain job."""
    ((due,),) = site.rows(DUE)
    with site.app.app_context():
        while due < BACKLOG:
            measure.enqueue_many([{"text": "x" * 200}] * 600)
            add.enqueue_many([{"a": 1, "b": 2}] * 300)
            backend_pid.enqueue_many([{}] * 90)
            fail_until.enqueue_many([{"attempt": 2}] * 10)
            db.session.commit()
            due += 1000
    with site.valkey.client() as redis:
        Queue("default", connection=redis).enqueue("os.getpid", result_ttl=0)


def minutes_of(site: Site, worker: Child, number: int) -> Iterator[Minute]:
    """Keep the worker busy, and yield what it is like, by the minute."""
    for _ in range(number):
        began, (first,) = time.monotonic(), site.rows(ENDED)
        parent: list[tuple[float, int]] = []
        children: dict[int, tuple[float, int]] = {}
        while (left := began + 60 - time.monotonic()) > 0:
            fill(site)
            parent.append((written_memory_mb(worker.pid), descriptors(worker.pid)))
            for child in worker.job_children():
                with suppress(OSError):
                    pid = child.pid
                    memory, files = children.get(pid, (0.0, 0))
                    children[pid] = max(own_memory_mb(pid), memory), max(descriptors(pid), files)
            again = time.monotonic() + min(EVERY_SECONDS, left)
            wait_until(lambda again=again: time.monotonic() >= again)
        (last,) = site.rows(ENDED)
        yield Minute(
            jobs_a_second=(last[0] - first[0]) / (time.monotonic() - began),
            parent_mb=statistics.median(memory for memory, _ in parent),
            parent_descriptors=max(number for _, number in parent),
            parent_threads=psutil.Process(worker.pid).num_threads(),
            child_mb=max(memory for memory, _ in children.values()),
            child_descriptors=max(number for _, number in children.values()),
            children=len(children),
        )


def growth(values: Sequence[float]) -> float:
    """How much the second half is above the first one."""
    middle = len(values) // 2
    return statistics.median(values[middle:]) - statistics.median(values[:middle])


def test_a_worker_does_not_grow(
    new_site: Site, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    number = pytestconfig.getoption("soak_minutes")
    if number < 4:
        pytest.skip("asked for by --soak-minutes, at least 4")
    faulthandler.cancel_dump_traceback_later()  # it ends a test after five minutes
    site = new_site
    site.loops(OPSJOBS_KEEP_FINISHED_DAYS=0, OPSJOBS_KEEP_OUTPUT_DAYS=0)
    worker = site.worker("--processes", "2", "--jobs-per-process", "1000", "default")
    seen: list[Minute] = []
    for minute in minutes_of(site, worker, number):
        seen.append(minute)
        with capsys.disabled():
            print(f"\nminute {len(seen):3}: {minute}", end="", flush=True)
    assert worker.exit_code is None
    assert "Traceback" not in worker.log
    # The first minutes fill caches, of the allocator and of the drivers.
    seen = seen[min(5, number // 4) :]
    growths = {
        "parent MB": growth([minute.parent_mb for minute in seen]),
        "parent descriptors": growth([minute.parent_descriptors for minute in seen]),
        "parent threads": growth([minute.parent_threads for minute in seen]),
        "child MB": growth([minute.child_mb for minute in seen]),
        "child descriptors": growth([minute.child_descriptors for minute in seen]),
    }
    with capsys.disabled():
        print(f"\nthe second half above the first one: {growths}")
    assert growths["parent MB"] < 1.0
    assert growths["child MB"] < 1.0
    assert growths["parent descriptors"] <= 1
    assert growths["parent threads"] <= 0
    assert growths["child descriptors"] <= 1
    assert worker.terminate(30) == 0
