"""A thousand queues: pages ask no more for them, and forget none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy.orm import Session

from flask_opsjobs.doctor.examination import examine
from tests.web.every import soup
from tests.web.rows import ago, make_integrity_check, make_job, make_loops

Get = Callable[..., Any]
OVERVIEW = ("/ops/jobs", "/ops/jobs/live")


def _make_queues(session: Session, numbers: range) -> None:
    for number in numbers:
        make_job(session, "available", queue=f"customer-{number:03}", due_at=ago(minutes=1))
        make_integrity_check(session, queue=f"customer-{number:03}")
    session.commit()


def _asked(client: FlaskClient, redis_client: Redis, path: str) -> dict[str, int]:
    """How many commands of each kind Redis gets for a page, beside pings, which an idle connection adds."""

    def count() -> Counter[str]:
        stats: Any = redis_client.info("commandstats")
        return Counter({name: said["calls"] for name, said in stats.items()})

    assert client.get(path).status_code == 200  # connects
    before = count()
    assert client.get(path).status_code == 200
    return {name: calls for name, calls in (count() - before).items() if "ping" not in name}


@pytest.mark.slow
def test_the_overview_asks_redis_as_much_of_a_thousand_queues_as_of_sixty(
    client: FlaskClient, redis_client: Redis, session: Session
) -> None:
    """Plain RQ jobs are counted in the first fifty: what a look costs is bounded."""
    _make_queues(session, range(60))
    few = [_asked(client, redis_client, path) for path in OVERVIEW]
    _make_queues(session, range(60, 1_000))
    assert [_asked(client, redis_client, path) for path in OVERVIEW] == few


@pytest.mark.slow
def test_the_last_of_a_thousand_queues_is_not_forgotten(
    get: Get, app: Flask, session: Session
) -> None:
    make_loops(session)
    _make_queues(session, range(999))
    make_job(session, "available", queue="zoo", due_at=ago(minutes=40))
    make_integrity_check(session, queue="zoo", deleted=1)
    session.commit()
    says = "The integrity check shows a difference"
    assert f"{says}: zoo." in _words(get("/"))
    assert f"{says}." in _words(get("/lifeline"))
    assert "1 to 100 of 1,000" in _words(get("/queues"))
    with app.app_context():
        answers = [one.answer.sentence for one in examine(app).results]
    assert any(says.startswith("A job of the queue zoo has been due for") for says in answers)


def _words(answer: Any) -> str:
    return " ".join(soup(answer.text).text.split())
