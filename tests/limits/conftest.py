"""Limited tasks, and an engine that has declared them as a starting process does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import Limit, OpsJobs
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task

Limited = Callable[..., Task]


@pytest.fixture
def limited(opsjobs: OpsJobs, host: Host) -> Limited:
    """Declares a task `call(account, size)` with a limit `api`, and records it:
    `limited(rate=…, name="other")`.
    """

    def make(name: str = "call", *, task: dict[str, Any] | None = None, **limit: Any) -> Task:
        limit.setdefault("partition", "account")

        def call(account: int = 0, size: int = 1) -> None:
            """Takes an account."""

        call.__name__ = name
        found = opsjobs.task(limit=Limit(limit.pop("limiter", "api"), **limit), **task or {})(call)
        declare_limiters(host, "test")
        return found

    return make


@pytest.fixture
def commit(db: SQLAlchemy) -> Callable[..., int]:
    """Records a job of a task as a host does, and commits; its id."""

    def record(task: Task, **arguments: Any) -> int:
        enqueued = task.enqueue(**arguments)
        db.session.commit()
        return enqueued.id

    return record
