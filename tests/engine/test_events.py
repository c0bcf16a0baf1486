"""Every event is sent: by which process, when, with which facts, and by nobody's leave."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.engine import make_url

from flask_opsjobs import LimitReached, signals
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker.runtime import declare_limiters
from flask_opsjobs.errors import ActionRefused, AuditBlocked
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline.finding import DetectorPass, Finding
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Pass, Runner
from tests.engine.site import enqueue, state_of
from tests.escalations.telling import Teller
from tests.support import host as host_module
from tests.support.engine import Bench
from tests.support.escalating import Acting
from tests.support.hearing import heard, hearing
from tests.support.host import add, die, fail, give, hold, only, say, say_structured
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

CANARIES = {
    name: f"canary-{name}" for name in ("argument", "output", "error", "log", "reason", "partition")
}
Line = dict[str, Any]
_COLOURS = re.compile("\x1b\\[[0-9;]*m")
WHY: dict[str, Any] = {"actor": "ada", "reason": CANARIES["reason"]}
# In which process each event is sent in the scenario.
TEST, WORKER, CHILD, PLAIN = "test", "worker", "child", "plain"
SENT_BY = {
    "job_enqueued": {TEST},
    "jobs_dispatched": {TEST, WORKER},
    "job_ended": {TEST, WORKER, PLAIN},
    "job_failed_without_exception": {WORKER},
    "job_rescued": {TEST},
    "job_recalled": {TEST},
    "attempt_started": {CHILD, PLAIN},
    "attempt_raised": {CHILD, PLAIN},
    "attempt_ended": {TEST, WORKER, PLAIN},
    "worker_started": {TEST, WORKER},
    "loops_silent": {WORKER},
    "workflow_ended": {WORKER},
    "step_ended": {WORKER},
    "batch_ended": {WORKER},
}


class Scene:
    """A host with receivers in all its processes."""

    def __init__(self, app: Flask, children: Children, folder: Path) -> None:
        self.host: Host = app.extensions["opsjobs"]
        url = make_url(app.config["SQLALCHEMY_DATABASE_URI"]).set(drivername="postgresql")
        self.dsn = url.render_as_string(hide_password=False)
        self.file = folder / "heard"
        self.gate = folder / "gate"
        self.connection = connect_apart(self.host.engine)
        self._children = children
        self._config = {"HEARS": str(self.file), "HEARS_IN": self.dsn}
        self._runners: dict[str, Runner] = {}

    def start_worker(self, *words: str, **config: Any) -> Child:
        """Start a worker whose heartbeats come soon."""
        given = {**self._config, "OPSJOBS_HEARTBEAT_SECONDS": 0.3, **config}
        return self._children.flask("opsjobs", "worker", *words, **given)

    def run_plain(self, redis_url: str, queue: str, layout: str) -> Child:
        """Let a plain `rq worker` perform what is in the queue."""
        rq = str(Path(sys.executable).with_name("rq"))
        config = {**self._config, "LOG_FORMAT": layout}
        env = {f"TEST_CONFIG_{key}": value for key, value in config.items()}
        words = ("worker", "--burst", "--url", redis_url, queue)
        plain = self._children.python(rq, *words, env={"FLASK_APP": "tests.support.host", **env})
        assert plain.wait(60) == 0
        return plain

    def loop(self, name: str, after: float = 0.0) -> None:
        """Make a pass of a loop in this process, as if so many seconds had passed."""
        loop = next(loop for loop in LOOPS if loop.name == name)
        runner = self._runners.setdefault(name, Runner(loop, self.host))
        now = read_clock(self.connection) + timedelta(seconds=after)
        runner.run_once(self.connection, now)

    def heard(self, event: str) -> list[Line]:
        """What was heard of an event."""
        return [line for line in heard(self.file) if line["event"] == event]

    def ended(self) -> set[int]:
        """The jobs that have ended, as events say."""
        return {int(line["facts"]["job_id"]) for line in self.heard("job_ended")}

    def wait_for(self, event: str) -> None:
        """Return when an event was heard."""
        wait_until(lambda: self.heard(event), 60, what=event)


@pytest.fixture
def scene(site: Flask, children: Children, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(site, children, tmp_path)
    yield scene
    scene.connection.close()


@pytest.mark.slow
def test_every_event_is_sent_with_its_facts(scene: Scene, redis_url: str, tmp_path: Path) -> None:
    layout = "[%(job_id)s %(task)s %(queue)s %(attempt)s] %(message)s"
    with hearing(scene.file, scene.dsn):
        ids = _enqueue_all()
        held = enqueue(hold.options(queue="held"), gate=str(scene.gate))
        idle = enqueue(give.options(queue="idle"), value=CANARIES["argument"])
        plain = scene.run_plain(redis_url, "plain", layout)
        scene.loop("expire", after=-61)
        worker = scene.start_worker("default", "held", "--processes", "2", LOG_FORMAT=layout)
        wait_until(Path(f"{scene.gate}.begun").exists, 60)
        for event in ("loops_silent", "workflow_ended", "batch_ended"):
            scene.wait_for(event)
        wait_until(lambda: _have_ended(scene, ids), 60, what="the end of all jobs")
        log = _COLOURS.sub("", worker.log)
        worker.kill_all()
        _lose_workers(scene, held)
        _operate(scene, idle)
        _find_what_is_wrong(scene, tmp_path)
    lines = heard(scene.file)
    _check_facts(lines)
    _check_processes(lines, worker.pid)
    _check_canaries(lines)
    _check_attempts(scene, ids)
    for told in (log, plain.log):  # these processes leave such a fact out, and go on
        assert "other facts than it declares" not in told
    assert f"[{ids['plain_say']} say plain 1] {CANARIES['log']}" in plain.log
    assert f"[{ids['say']} say default 1] {CANARIES['log']}" in log
    (structured,) = [line for line in log.splitlines() if "by structlog" in line]
    facts = {f"job_id={ids['structured']}", "task=say_structured", "queue=default", "attempt=1"}
    assert facts <= {*structured.split()}


def _enqueue_all() -> dict[str, int]:
    """Jobs of every kind that will end by themselves; their ids."""
    argument, error, opsjobs = CANARIES["argument"], CANARIES["error"], host_module.opsjobs
    flow = opsjobs.workflow("order", context={"note": argument})
    first = flow.step("give", give, value=argument)
    flow.wait("paid", signal="payment", key="canary-key", after=first)
    flow.start()
    opsjobs.signal("payment", key="canary-key", payload={"note": argument})
    with opsjobs.batch("import", meta={"note": argument}) as batch:
        batch.enqueue(add, a=1, b=2)
    return {
        "plain_say": enqueue(say.options(queue="plain"), text=CANARIES["log"]),
        "plain_fail": enqueue(fail.options(queue="plain", max_attempts=1), message=error),
        "give": enqueue(give, value=argument),
        "fail": enqueue(fail.options(max_attempts=2), message=error),
        "die": enqueue(die, attempts=1),
        "die_for_good": enqueue(die.options(max_attempts=1), attempts=1),
        "say": enqueue(say, text=CANARIES["log"]),
        "structured": enqueue(say_structured, text="by structlog"),
    }


def _have_ended(scene: Scene, ids: dict[str, int]) -> bool:
    scene.loop("stage")  # for those that are tried again
    return {*ids.values()} <= scene.ended()


def _lose_workers(scene: Scene, held: int) -> None:
    """The watch loop finds that the worker is gone, and another one late and then missing."""
    Bench(scene.host).close()
    for number in range(15):
        scene.loop("watch", after=10 * number)
    assert state_of(held) == "available"


def _operate(scene: Scene, idle: int) -> None:
    """An operator acts, and calls are rejected."""
    declare_limiters(scene.host, "test")
    only.enqueue(who=CANARIES["partition"])
    host_module.db.session.commit()
    with pytest.raises(LimitReached):
        only.enqueue(who=CANARIES["partition"])
    host_module.db.session.rollback()
    scene.loop("cron")
    operator = host_module.opsjobs.operator
    operator.pause("idle", **WHY)
    operator.cancel(idle, **WHY)
    operator.cooldown("picky", 5, **WHY)
    operator.run_cron_now("yearly", **WHY)
    with pytest.raises(ActionRefused):
        operator.retry(idle + 1_000, **WHY)


def _find_what_is_wrong(scene: Scene, folder: Path) -> None:
    """An incident opens, is over and opens again; the policy is called; a loop fails."""
    facts = {"loop": "stage", "failed": 5, "process": "p", "error": CANARIES["error"]}
    found = Finding("loop/stage", facts=facts)
    now = read_clock(scene.connection)
    for number, findings in enumerate([[found], *[[]] * incidents.PASSES_TO_CLEAR, [found]]):
        at = now + timedelta(minutes=number)
        with scene.connection.transaction():
            applied = incidents.apply_pass(
                scene.connection, "loop_failing", DetectorPass(findings), at
            )
        incidents.announce(scene.host, applied)
    scene.host.escalation = Acting(folder)
    teller = Teller(scene.host)
    teller.find()
    teller.look()
    teller.close()
    expire = next(loop for loop in LOOPS if loop.name == "expire")
    Runner(replace(expire, run=_break_off), scene.host).run_once(scene.connection)


def _break_off(_context: Pass) -> str:
    raise RuntimeError(CANARIES["error"])


def _check_facts(lines: list[Line]) -> None:
    declared = {kind.name: sorted(kind.facts) for kind in signals.EVENTS.values()}
    assert {line["event"] for line in lines} == {*declared}
    for line in lines:
        assert line["names"] == declared[line["event"]]
        assert line["sender"] == ("Task" if line["event"] == "job_enqueued" else "Host"), line
        if line["row"] is not None:
            assert repr(line["row"]) == line["facts"]["state"], "another connection sees it"


def _check_processes(lines: list[Line], worker: int) -> None:
    sent_by = defaultdict[str, set[str]](set)
    for line in lines:
        if line["pid"] in (os.getpid(), worker):
            process = TEST if line["pid"] == os.getpid() else WORKER
        else:
            process = PLAIN if line["facts"].get("queue") == "'plain'" else CHILD
        sent_by[line["event"]].add(process)
        assert (line["thread"] == "opsjobs-events") == (process == WORKER), line
    # A worker sends it too when it had taken a job ahead that it gives back: not in each run.
    sent_by["job_recalled"].discard(WORKER)
    assert sent_by == {line["event"]: SENT_BY.get(line["event"], {TEST}) for line in lines}


def _check_canaries(lines: list[Line]) -> None:
    for line in lines:
        assert "canary" not in repr(line["facts"]), line
        assert (CANARIES["error"] in line["exception"]) == (line["event"] == "attempt_raised")


def _check_attempts(scene: Scene, ids: dict[str, int]) -> None:
    told = {
        name: [
            (line["event"].removeprefix("attempt_"), *(line["facts"].get(fact) for fact in facts))
            for line in heard(scene.file)
            if line["event"] in ("attempt_started", "attempt_raised", "attempt_ended")
            and line["facts"]["job_id"] == repr(ids[name])
            for facts in [("attempt", "outcome", "is_last", "state")]
        ]
        for name in ("give", "fail", "die", "plain_fail")
    }
    started = [("started", "1", None, None, None), ("started", "2", None, None, None)]
    assert told["give"] == [started[0], ("ended", "1", "'returned'", None, "'finished'")]
    # The child and the parent write into one file: who is first is not said.
    failed = [
        *started,
        ("raised", "1", "'raised'", "False", None),
        ("raised", "2", "'raised'", "True", None),
        ("ended", "1", "'raised'", None, "'retryable'"),
        ("ended", "2", "'raised'", None, "'failed'"),
    ]
    died = [
        *started,
        ("ended", "1", "'died'", None, "'retryable'"),
        ("ended", "2", "'returned'", None, "'finished'"),
    ]
    assert Counter(told["fail"]) == Counter(failed)
    assert Counter(told["die"]) == Counter(died)
    assert [event for event, *_ in told["plain_fail"]] == ["started", "raised", "ended"]
    ended = [line["facts"]["job_id"] for line in scene.heard("job_ended")]
    assert len(ended) == len({*ended}), "each job ends once"


def _are_finished(scene: Scene, ids: list[int]) -> bool:
    scene.loop("stage")
    return {state_of(id) for id in ids} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["raises", "sleeps", "kills"])
def test_a_receiver_that_misbehaves_loses_no_job(scene: Scene, how: str) -> None:
    ids = [enqueue(give, value=number) for number in range(3)]
    worker = scene.start_worker("default", RECEIVERS=how)
    at_end = Path(f"{scene.file}-job_ended")
    wait_until(at_end.exists, 60)
    if how == "kills":
        assert worker.wait(60) == -signal.SIGKILL
        for number in range(15):
            scene.loop("watch", after=10 * number)
        scene.start_worker("default", RECEIVERS=how)
    ids.append(enqueue(give, value=3))
    wait_until(lambda: _are_finished(scene, ids), 60)
    if how == "raises":
        worker.wait_for("a receiver of the signal job-ended raised", 60)
        assert "a receiver of the signal attempt-started raised (RuntimeError at " in worker.log
        assert "a receiver of the host" not in worker.log
    if how == "sleeps":
        assert not Path(f"{at_end}-left").exists(), "the fourth job ended while the receiver slept"
    if how != "kills":
        assert worker.terminate(60) == 0


def test_an_event_of_a_rollback_is_not_sent(scene: Scene) -> None:
    """An action whose audit is refused ends no job, and says nothing."""
    idle = enqueue(give.options(queue="idle"), value=1)
    scene.connection.execute("ALTER TABLE opsjobs.audit_events ADD CHECK (actor <> 'ada')")
    with hearing(scene.file, scene.dsn), pytest.raises(AuditBlocked):
        host_module.opsjobs.operator.cancel(idle, **WHY)
    assert [line["event"] for line in heard(scene.file)] == []
    assert state_of(idle) != "canceled"
