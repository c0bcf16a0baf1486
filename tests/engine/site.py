"""What tests with worker processes do and look at, in the app context of the fixture `site`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from tests.support import host as host_module


def enqueue(task: Any, **args: Any) -> int:
    job = task.enqueue(**args)
    host_module.db.session.commit()
    return job.id


def rows(statement: str, **values: Any) -> list[Any]:
    found = host_module.db.session.execute(text(statement), values).all()
    host_module.db.session.rollback()
    return list(found)


def state_of(job_id: int) -> str:
    return rows("SELECT state FROM opsjobs.jobs WHERE id = :id", id=job_id)[0][0]
