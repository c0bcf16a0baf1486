"""Compares what the overview's headline, an incident and the doctor say of the same trouble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import Reading
from flask_opsjobs.core.round_trips import StartedRead
from flask_opsjobs.doctor.check import CheckAnswer, CheckContext
from flask_opsjobs.doctor.examination import examine
from flask_opsjobs.doctor.registry import CHECKS
from flask_opsjobs.engine.plain_jobs import find_plain_jobs
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.redis.connections import find_unreachable
from flask_opsjobs.lifeline.incidents import words_of
from flask_opsjobs.lifeline.lifecycle import SHOWN_AS
from flask_opsjobs.lifeline.queries import IncidentFilter, page_of_open_incidents
from flask_opsjobs.overview.headline import Wrong, find_wrong
from flask_opsjobs.overview.queries import Overview, find_overview
from tests.lifeline import detecting_jobs
from tests.lifeline.detecting import Scene
from tests.support.waiting import wait_until

# By class of incidents, the check that finds the same at once. Of the others `lifeline.incidents` tells when
# nobody has cared for an hour.
CHECK_OF: dict[str, str | None] = {
    "audit_broken": "audit.tail",
    "batch_overdue": None,
    "callback_failed": "lifeline.callbacks",
    "code_missing": "workers.unknown_tasks",
    "cron_missed": None,
    "delivery_lost": None,
    "escalation_failed": None,
    "failure_new": None,
    "failure_regressed": None,
    "held_by_nobody": "jobs.held_by_nobody",
    "integrity_off": "jobs.integrity_off",
    "lane_starving": None,
    "lease_leaked": "leases.leaked",
    "loop_failing": "loops.failing",
    "loop_silent": "loops.awake",
    "operation_stopped": "lifeline.operations",
    "orphan_delivery": None,
    "poison": None,
    "postgres_away": None,
    "queue_unserved": "workers.listeners",
    "redis_away": "redis.reachable",
    "redis_lost": None,
    "retry_storm": None,
    "rq_dependents_stuck": None,
    "rq_orphan": None,
    "wait_overdue": None,
    "worker_missing": None,
    "workflow_stuck": None,
}
# What this process sees itself is said in its own words.
OWN_WORDS = {"redis_away": "does not answer."}
# Without it the doctor asks no other check of Redis, so it is an error also where it only is a warning.
ALWAYS_AN_ERROR = "redis.reachable"
# Near misses of an incident, which waits. The headline and the doctor say what is so now.
NOW = {
    "restart within 30 s",
    "one count",
    "one pass without an answer",
    # Nobody runs it, and its process is gone, so that a deploy may have left it out.
    "left out by a deploy",
}


@dataclass
class Agreement:
    """What all three say of a scene. The doctor's clock is that of the scene, and `later` than it."""

    scene: Scene
    later: timedelta = timedelta()

    @contextmanager
    def at_its_time(self, reading: Any, context: CheckContext) -> Iterator[Reading]:
        """A transaction of the doctor's with another clock."""
        with reading(context) as read:
            now = max(read.now, self.scene.now + self.later)
            yield replace(read, began=StartedRead(None, lambda: now))

    def ask(self, check: str) -> CheckAnswer:
        """What a check of the doctor answers."""
        (result,) = examine(self.scene.get("app"), only=[check]).results
        return result.answer

    def see(self) -> Overview:
        """What the overview reads."""
        scene = self.scene
        with Session(scene.bench.host.engine) as session:
            return find_overview(session, scene.now, scene.bench.host.settings.late_seconds)

    def headline(self) -> list[Wrong]:
        """The lines of the headline, as the overview makes them."""
        broker = broker_of(self.scene.bench.host)
        away = find_unreachable(broker.connections, ["default"])
        plain = find_plain_jobs(broker, ["default"], self.scene.now)
        return find_wrong(self.see(), away, is_suspended=plain.is_suspended)

    def is_silent(self, title: str = "") -> None:
        """The check of the class is fine, and the headline has no line with this title."""
        check = CHECK_OF[self.scene.class_]
        self._keep_awake()
        # A Redis that did not answer is asked again after a moment.
        wait_until(lambda: not title or not self._lines_about(title))
        if check:
            found = self.ask(check)
            assert found.state == "ok", found

    def tells(self, incident: dict[str, Any]) -> None:
        """The headline, the check of the class and `lifeline.incidents` tell of this incident, as severe.

        Nobody but Lifeline tells of a notice.
        """
        class_, check = self.scene.class_, CHECK_OF[self.scene.class_]
        title = words_of(class_, incident["facts"]).title
        is_notice = incident["severity"] == "notice"
        level, state = SHOWN_AS.get(incident["severity"], (None, None))
        levels = {line.level for line in self._lines_about(title)}
        assert levels == ({level} if level else set()), self.headline()
        if check:
            found = self.ask(check)
            assert found.state == ("error" if check == ALWAYS_AN_ERROR else state)
            assert found.state in CHECKS[check].levels
            assert found.sentence.endswith(_said_of(class_, title)), found
            assert found.run
        with Session(self.scene.bench.host.engine) as session:
            rows, _ = page_of_open_incidents(session, IncidentFilter())
        assert (incident["id"] in {row.id for row in rows}) is not is_notice
        self.later = timedelta(hours=2)
        late = self.ask("lifeline.incidents")
        self.later = timedelta()
        if rows:
            assert late.state == SHOWN_AS[rows[0].severity][1]
            assert late.sentence.startswith(f"Incident {rows[0].id} is open for ")
            assert late.sentence.endswith(f": {rows[0].title}.")
        else:
            assert late.state == "ok"

    def _lines_about(self, title: str) -> list[Wrong]:
        said = _said_of(self.scene.class_, title)
        return [line for line in self.headline() if line.fact.endswith(said)]

    def _keep_awake(self) -> None:
        """What a case is not about: somebody looks for incidents and counts jobs, and a worker runs."""
        if self.scene.class_ == "loop_silent":
            self.scene.run("detect")
        if self.scene.class_ == "integrity_off":
            self.scene.run("check_integrity")
        if self.scene.class_ == "queue_unserved":
            detecting_jobs.beat(self.scene)


def agree_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Agreement:
    """What all three say of this scene."""
    agreement, reading = Agreement(scene), CheckContext.reading
    monkeypatch.setattr(
        CheckContext, "reading", lambda context: agreement.at_its_time(reading, context)
    )
    return agreement


def _said_of(class_: str, title: str) -> str:
    return OWN_WORDS.get(class_, f"{title}.")
