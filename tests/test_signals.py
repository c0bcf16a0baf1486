"""Events are sent with their declared facts, after the commit, to receivers that may do what they like."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from flask_opsjobs import signals
from flask_opsjobs.engine.worker.event_thread import EventThread
from flask_opsjobs.testing import perform_due
from tests.support.waiting import wait_until

STARTED: dict[str, Any] = {"worker": "w", "kind": "pool", "queues": (), "processes": 1}


@pytest.fixture
def heard() -> Iterator[list[tuple[str, Any]]]:
    """What `queue_changed` and `worker_late` were sent with."""
    heard: list[tuple[str, Any]] = []

    def hear(sender: object, /, **facts: Any) -> None:
        heard.append((str(sender), facts.get("queue") or facts.get("worker")))

    with signals.queue_changed.connected_to(hear), signals.worker_late.connected_to(hear):
        yield heard


def change(queue: str) -> None:
    signals.send(signals.queue_changed, queue=queue, change="pause")


def roll_back(queue: str) -> None:
    with contextlib.suppress(RuntimeError), signals.once_committed():
        change(queue)
        raise RuntimeError


@pytest.mark.parametrize("facts", [{**STARTED, "args": "secret"}, {"worker": "w"}])
def test_other_facts_than_the_declared_ones_raise_in_tests(facts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the event worker_started was sent with other facts"):
        signals.send(signals.worker_started, **facts)


def test_in_production_they_are_left_out_and_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(signals, "is_strict", False)
    monkeypatch.setattr(signals, "_told", set())
    got: list[dict[str, Any]] = []
    with signals.worker_started.connected_to(lambda _, **facts: got.append(facts)):
        for _ in range(2):
            signals.send(signals.worker_started, **STARTED, args="secret")
    assert got == [STARTED, STARTED]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "the event worker_started was sent with other facts than it declares: args"


def test_labels_are_facts_with_few_values() -> None:
    ids = {"job_id", "job_ids", "workflow_id", "batch_id", "incident", "audit", "worker", "actor"}
    for kind in signals.EVENTS.values():
        assert set(kind.labels) <= set(kind.facts)
        assert not ids & set(kind.labels), kind.name


def test_events_wait_for_the_end_of_the_outermost_block(heard: list[tuple[str, Any]]) -> None:
    with signals.sent_by("host"), signals.once_committed():
        change("one")
        roll_back("savepoint")
        with signals.once_committed():
            change("two")
        assert heard == []
    assert heard == [("host", "one"), ("host", "two")]
    roll_back("transaction")
    change("four")
    assert heard[2:] == [("None", "four")]


def test_one_that_raises_does_not_keep_the_others_from_it(
    heard: list[tuple[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def explode(sender: object, **facts: Any) -> None:
        raise RuntimeError("a receiver of the host")

    with signals.queue_changed.connected_to(explode):
        change("one")
    assert heard == [("None", "one")]
    assert (
        f"a receiver of the signal queue-changed raised (RuntimeError at {__file__}:" in caplog.text
    )
    assert "a receiver of the host" not in caplog.text


def test_a_thread_of_its_own_calls_them_and_drops_what_is_too_much(
    heard: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flask_opsjobs.engine.worker.event_thread._MOST", 2)
    caplog.set_level(logging.WARNING)
    thread = EventThread()

    def leave(sender: object, **facts: Any) -> None:
        raise SystemExit

    with signals.handed_over(thread.put, "worker"), signals.queue_changed.connected_to(leave):
        for number in range(5):
            change(f"queue {number}")
        assert heard == []
        assert caplog.text.count("events are dropped") == 1
        thread.start()
        wait_until(lambda: thread.lets_fork() and thread._waiting.empty())
        signals.send(signals.worker_late, worker="late")
        assert thread.stop(10)
    assert heard[-1] == ("worker", "late")
    assert caplog.text.count("a receiver of the signal queue-changed raised") == 2


def test_no_event_is_asked_for_when_nobody_listens(
    db: Any, opsjobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole life of a job sends nothing."""
    sent: list[str] = []
    task = opsjobs.task(name="call")(lambda: None)
    monkeypatch.setattr(signals, "_deliver", sent.append)
    monkeypatch.setattr(signals.Message, "send", sent.append)
    task.enqueue()
    db.session.commit()
    assert perform_due().counts == {"finished": 1}
    assert sent == []
    assert db.session.scalar(text("SELECT count(*) FROM opsjobs.jobs")) == 1
