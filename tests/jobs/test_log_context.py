"""What a job logs says of which job it is; `tests/engine/test_events.py` has it in workers."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from flask_opsjobs import AttemptFilter
from flask_opsjobs.jobs.perform import log_context
from flask_opsjobs.jobs.perform.perform import perform
from flask_opsjobs.jobs.record.declaration import TaskDeclaration
from tests.support.jobs import Notebook, make_claimed

LAYOUT = "%(job_id)s %(task)s %(queue)s %(attempt)s %(message)s"


@pytest.fixture(params=["", "host.part"])
def written(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[io.StringIO]:
    """What a handler of the root logger, or of another one, has written in a process that begins."""
    monkeypatch.setattr(log_context, "_has_looked", False)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        logging.Formatter(
            LAYOUT, defaults=dict.fromkeys(("job_id", "task", "queue", "attempt"), "-")
        )
    )
    logger = logging.getLogger(request.param)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def run(function: Callable[[], Any]) -> None:
    task = TaskDeclaration(function, name="once")
    assert perform({"once": task}, make_claimed(task, attempt=3), Notebook()).kind == "returned"


def test_records_of_an_attempt_say_which_it_is(written: io.StringIO) -> None:
    log = logging.getLogger("host.part")

    def once() -> None:
        log.warning("plain")
        log.warning("its own", extra={"task": "of the host", "queue": "of the host"})

    run(once)
    log.warning("after")
    assert written.getvalue().splitlines() == [
        "7 once default 3 plain",
        "7 of the host of the host 3 its own",
        "None None None None after",
    ]


def test_a_filter_of_the_host_makes_the_names_known_everywhere() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(AttemptFilter())
    handler.setFormatter(logging.Formatter(LAYOUT))
    handler.handle(logging.makeLogRecord({"msg": "elsewhere"}))
    assert stream.getvalue() == "None None None None elsewhere\n"


def test_structlog_says_so_too() -> None:
    said: list[dict[str, Any]] = []

    def once() -> None:
        said.append(structlog.contextvars.get_contextvars())

    with structlog.contextvars.bound_contextvars(task="of the host"):
        run(once)
        said.append(structlog.contextvars.get_contextvars())
    assert said == [
        {"job_id": 7, "task": "once", "queue": "default", "attempt": 3},
        {"task": "of the host"},
    ]
