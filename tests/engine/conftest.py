"""Fixtures of the engine's tests: workers on the app, and engines that step by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.worker import Worker
from tests.support.engine import Bench

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(host: Host) -> Iterator[MakeBench]:
    """Makes engines, each on a connection and with an executor of its own."""
    made: list[Bench] = []

    def make(name: str | None = None, **options: Any) -> Bench:
        made.append(Bench(host, name or f"executor-{len(made) + 1}", **options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """One engine."""
    return make_bench()


@pytest.fixture
def note(opsjobs: OpsJobs) -> Worker:
    """A worker with nothing special."""

    def note(text: str = "") -> None:
        """Takes a text."""

    return opsjobs.worker(note)


@pytest.fixture
def record_job(note: Worker, db: SQLAlchemy) -> Callable[..., int]:
    """Records a job as a host does, and commits; its id."""

    def record(worker: Worker = note, *, text: str = "", **options: Any) -> int:
        enqueued = (
            worker.options(**options).enqueue(text=text) if options else worker.enqueue(text=text)
        )
        db.session.commit()
        return enqueued.id

    return record
