"""What tests with worker processes do and look at, in the app context of the fixture `site`."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
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


def give_redis_time(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host wait 5 s, not 0.2 s, for Redis to answer a push.

    On a busy machine an answer may come later than 0.2 s. Then the host recalls jobs that Redis took, and
    they are dispatched a second time.
    """
    broker = app.extensions["opsjobs"].broker
    send = broker.send
    monkeypatch.setattr(broker, "send", lambda deliveries, *, quick: send(deliveries))
