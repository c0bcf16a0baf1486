"""What pages read of incidents: lists by keyset, evidence, episodes, what changed before, counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import queries
from flask_opsjobs.lifeline.finding import Finding
from flask_opsjobs.lifeline.queries import IncidentFilter, Repaired
from flask_opsjobs.lifeline.repairs import MOST_JOBS, Repair, repairs_of
from flask_opsjobs.workers import transitions as workers
from tests.lifeline.test_incidents import CRON, Passes, finding, saw
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "ada", "reason": "known to all of us"}


@pytest.fixture
def passes(bench: Bench) -> Passes:
    return Passes(bench)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.engine) as session:
        yield session


def test_a_list_goes_from_page_to_page_the_newest_first(passes: Passes, session: Session) -> None:
    # Two begin at the same moment: the key tells them apart.
    for number in range(3):
        passes.look(finding(f"loop/{number}a"), finding(f"loop/{number}b"))
    wanted, found, older = IncidentFilter(), [], None
    while True:
        page = queries.page_of_incidents(session, wanted, older_than=older, limit=4)
        found += [row.subject for row in page.rows]
        older = page.older
        if older is None:
            break
    assert sorted(found) == [f"loop/{number}{letter}" for number in range(3) for letter in "ab"]
    assert [subject[5] for subject in found] == list("221100")


def test_filters_by_class_severity_and_state(passes: Passes, session: Session, host: Host) -> None:
    passes.look(finding("loop/gone"))
    passes.quiet()
    passes.look(finding("loop/stage"), finding("loop/fold", severity="notice"))
    passes.look(Finding("loop/cron", facts=CRON), class_="loop_silent")
    (known,) = queries.page_of_incidents(session, IncidentFilter(severity="notice")).rows
    Operator(host).acknowledge_incident(known.id, "2h", **WHY)
    session.rollback()

    def subjects(**wanted: str) -> set[str]:
        rows = queries.page_of_incidents(session, IncidentFilter(**wanted)).rows
        return {row.subject for row in rows}

    assert subjects(class_="loop_silent") == {"loop/cron"}
    assert subjects(severity="critical") == {"loop/cron"}
    assert subjects(state="acknowledged") == {"loop/fold"}
    assert subjects(state="resolved") == {"loop/gone"}
    assert subjects(state="active") == {"loop/stage", "loop/fold", "loop/cron"}
    assert subjects(state="open", class_="loop_failing") == {"loop/stage"}


def test_one_incident_with_its_words(passes: Passes, session: Session) -> None:
    (news,) = passes.look(finding(evidence=saw(1))).opened
    found = queries.find_incident(session, news.id)
    assert found is not None
    assert (found.title, found.is_still_true, found.has_cause) == (
        "The loop stage fails",
        True,
        False,
    )
    assert found.why == "Its last 5 passes in process p failed: no"
    assert queries.find_incident(session, news.id + 1) is None


def test_evidence_and_episodes(passes: Passes, session: Session) -> None:
    (news,) = passes.look(finding(evidence=saw(1))).opened
    passes.quiet()
    passes.look(finding(evidence=saw(2)))
    found = queries.find_incident(session, news.id)
    assert found is not None
    first, second = queries.list_episodes(session, found)
    assert (first.number, first.ended_by, second.number, second.ended_at) == (
        1,
        "cleared",
        2,
        None,
    )
    assert first.ended_at is not None
    assert first.began_at < first.ended_at <= second.began_at
    kinds = [row.kind for row in queries.list_evidence(session, news.id, 2)]
    assert kinds == ["reopened", "pass_failed"]


def test_what_changed_just_before(
    passes: Passes, session: Session, bench: Bench, host: Host
) -> None:
    now = passes.now
    bench.rows("DELETE FROM opsjobs.workers RETURNING 1")

    def work(name: str, started: float, ended: float | None = None) -> None:
        process = workers.WorkerProcess(name=name, host="here", pid=1, version="1", queues=["mail"])
        id_ = workers.register(bench.connection, process, now - timedelta(minutes=started))
        if ended is not None:
            workers.stop(bench.connection, id_, now - timedelta(minutes=ended))

    work("before", 50, 40)
    work("stopped", 50, 20)
    work("started", 10)
    operator = Operator(host)
    operator.pause("mail", **WHY, authorize=False)
    passes.now += timedelta(minutes=1)
    (news,) = passes.look(finding()).opened
    operator.acknowledge_incident(news.id, "2h", **WHY, authorize=False)
    found = queries.find_incident(session, news.id)
    assert found is not None
    changes = queries.list_changes_before(session, found)
    assert [(change.kind, change.what) for change in changes] == [
        ("decision", "queue.pause"),
        ("worker_started", "started"),
        ("worker_stopped", "stopped"),
    ]
    assert (changes[0].by, changes[0].subject, changes[0].reason) == (
        "ada",
        "queue/mail",
        WHY["reason"],
    )


def test_the_badge_counts_what_nobody_knows_of_and_what_has_no_cause(
    passes: Passes, session: Session, host: Host
) -> None:
    passes.look(finding("loop/stage"), finding("loop/fold"), finding("loop/x", severity="notice"))
    (cause,) = passes.look(Finding("loop/cron", facts=CRON), class_="loop_silent").opened
    passes.look(finding("loop/expire"), is_complete=False)
    assert _open(session) == {"critical": 1, "warning": 2, "notice": 1}
    session.rollback()
    assert [row.subject for row in queries.list_followers(session, cause.id)] == ["loop/expire"]
    Operator(host).acknowledge_incident(cause.id, "2h", **WHY)
    session.rollback()
    # What follows from it stays hidden while it is active.
    assert _open(session) == {"critical": 0, "warning": 2, "notice": 1}
    for _ in range(8):
        passes.look(class_="loop_silent")
    session.rollback()
    assert _open(session) == {"critical": 0, "warning": 3, "notice": 1}


def _open(session: Session) -> Mapping[str, int]:
    return queries.count_active_incidents(session).open


def test_what_repaired_itself_is_counted_by_class(passes: Passes, session: Session) -> None:
    since = passes.now
    passes.look(finding("loop/x", severity="notice", affected=43), finding("loop/y", affected=2))
    passes.quiet()
    assert queries.count_repaired(session, since) == [Repaired("loop_failing", 1, 43)]
    assert queries.count_repaired(session, passes.now + timedelta(seconds=1)) == []


def test_repairs_name_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from flask_opsjobs.lifeline.detectors import DETECTORS

    names = ("job.rescue", "queue.pause", "worker.forget", "lease.release")
    monkeypatch.setitem(
        DETECTORS, "loop_failing", replace(DETECTORS["loop_failing"], repairs=names)
    )
    facts = {"jobs": [7, 9], "queue": "mail", "worker": "wk-3"}
    assert repairs_of("loop_failing", facts) == [
        Repair("job.rescue", ("job/7", "job/9")),
        Repair("queue.pause", ("queue/mail",)),
        Repair("worker.forget", ("worker/wk-3",)),
        Repair("lease.release", ()),
    ]
    many = {"jobs": list(range(1, MOST_JOBS + 2))}
    assert repairs_of("loop_failing", many)[0] == Repair("job.rescue", ())
