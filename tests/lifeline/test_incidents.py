"""What becomes of findings: incidents that open, reopen and clear; evidence; acknowledgements; causes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from flask_opsjobs import signals
from flask_opsjobs.core import db
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline import incidents, retention
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.finding import DetectorPass, Finding, Observation
from flask_opsjobs.lifeline.incidents import Applied
from flask_opsjobs.loops.detect import LOOP
from flask_opsjobs.loops.loop import Runner
from tests.conftest import MakeBench
from tests.support.engine import Bench, race

CLASS = "loop_failing"
FACTS = {"loop": "stage", "failed": 5, "process": "p", "error": "no"}


class Passes:
    """Passes of one detector, each five seconds after the last one."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.now: datetime = read_clock(bench.connection)

    def look(
        self, *findings: Finding, class_: str = CLASS, is_complete: bool = True, after: float = 5
    ) -> Applied:
        self.now += timedelta(seconds=after)
        return self.look_on(
            self.bench.connection, *findings, class_=class_, is_complete=is_complete
        )

    def look_on(
        self,
        connection: db.Connection,
        *findings: Finding,
        class_: str = CLASS,
        is_complete: bool = True,
    ) -> Applied:
        with connection.transaction():
            found = DetectorPass(findings, is_complete)
            return incidents.apply_pass(connection, class_, found, self.now)

    def quiet(self, passes: int = 7) -> Applied:
        applied = Applied()
        for _ in range(passes):
            applied += self.look()
        return applied

    @property
    def row(self) -> dict[str, Any]:
        return self.bench.row("SELECT * FROM opsjobs.incidents WHERE class = %s", CLASS)

    def evidence(self) -> list[tuple[int, str, int]]:
        rows = self.bench.rows("SELECT * FROM opsjobs.evidence ORDER BY episode, first_at, id")
        return [(row["episode"], row["kind"], row["count"]) for row in rows]

    def acknowledge(self, **until: float) -> None:
        """As the action does it."""
        self.bench.rows(
            """UPDATE opsjobs.incidents SET state = 'acknowledged', acknowledged_by = 'ada',
                acknowledged_at = %s, acknowledged_until = %s, acknowledged_reason = 'known to us',
                acknowledged_severity = severity, acknowledged_affected = affected RETURNING id""",
            self.now,
            self.now + timedelta(**until),
        )


@pytest.fixture
def passes(bench: Bench) -> Passes:
    return Passes(bench)


def finding(subject: str = "loop/stage", **options: Any) -> Finding:
    return Finding(subject, facts=FACTS, **options)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a finding of the class become an incident only when it has been so for 12 s."""
    monkeypatch.setitem(
        DETECTORS,
        CLASS,
        replace(DETECTORS[CLASS], open_after=timedelta(seconds=12)),
    )


# --- open, refresh, reopen, clear


def test_one_with_facts_of_another_version_is_cleared(passes: Passes) -> None:
    passes.look(finding())
    passes.bench.rows("UPDATE opsjobs.incidents SET facts = '{}' RETURNING id")
    (news,) = passes.quiet().resolved
    assert (passes.row["state"], news.title) == (
        "resolved",
        "Failing loops: facts of another version",
    )


def test_a_finding_opens_an_incident_once(passes: Passes) -> None:
    (news,) = passes.look(finding(affected=3)).opened
    first = passes.row
    assert (first["state"], first["episode"], first["affected"]) == ("open", 1, 3)
    assert (first["severity"], first["facts"], first["opened_at"]) == ("warning", FACTS, passes.now)
    assert (news.id, news.title) == (first["id"], "The loop stage fails")
    assert not passes.look(finding(affected=4))
    again = passes.row
    assert (again["id"], again["seen_count"], again["affected"]) == (first["id"], 2, 4)
    assert (again["opened_at"], again["seen_at"]) == (first["opened_at"], passes.now)


def test_it_is_cleared_by_two_complete_passes_after_its_quiet_time(passes: Passes) -> None:
    passes.look(finding())
    assert not passes.quiet(5)
    (news,) = passes.look().resolved
    assert (news.class_, news.subject, news.episode) == (CLASS, "loop/stage", 1)
    row = passes.row
    assert (row["state"], row["resolved_by"], row["resolved_at"]) == (
        "resolved",
        "cleared",
        passes.now,
    )


def test_one_complete_pass_clears_nothing_however_late_it_comes(passes: Passes) -> None:
    passes.look(finding())
    assert not passes.look(after=3600)
    assert passes.look().resolved


def test_a_finding_between_two_passes_without_one_starts_the_count_anew(passes: Passes) -> None:
    passes.look(finding())
    for _ in range(4):
        assert not passes.look(after=60)
        assert not passes.look(finding())
    assert passes.row["missed_passes"] == 0


def test_an_incomplete_pass_clears_nothing(passes: Passes) -> None:
    passes.look(finding())
    for _ in range(20):
        assert not passes.look(is_complete=False)
    assert (passes.row["state"], passes.row["missed_passes"]) == ("open", 0)


def test_what_nobody_could_look_for_during_a_day_is_given_up(passes: Passes) -> None:
    passes.look(finding())
    assert not passes.look(is_complete=False, after=86_000)
    (news,) = passes.look(is_complete=False, after=500).resolved
    assert (news.subject, passes.row["resolved_by"]) == ("loop/stage", "expired")


def test_the_same_finding_reopens_it_as_the_next_episode(passes: Passes) -> None:
    (opened,) = passes.look(finding()).opened
    passes.quiet()
    (news,) = passes.look(finding(since=passes.now - timedelta(hours=3), affected=9)).reopened
    row = passes.row
    assert (row["id"], row["state"], row["episode"], news.episode) == (opened.id, "open", 2, 2)
    # That time is of the last episode: this one began when it was first found since.
    assert (row["opened_at"], row["resolved_at"]) == (passes.now, None)
    assert (row["first_at"] < row["opened_at"], row["affected"]) == (True, 9)


def test_an_incident_began_when_the_data_say_so(passes: Passes) -> None:
    since = passes.now - timedelta(hours=2)
    passes.look(finding(since=since))
    assert (passes.row["first_at"], passes.row["opened_at"]) == (since, since)


def test_a_time_in_the_future_is_taken_as_now(passes: Passes) -> None:
    passes.look(finding(since=passes.now + timedelta(hours=2)))
    assert passes.row["opened_at"] == passes.now


def test_a_clock_that_is_set_back_breaks_nothing(passes: Passes) -> None:
    passes.look(finding())
    passes.look(finding(), after=-3600)
    passes.look(after=3600 + 60)
    assert passes.look().resolved
    passes.look(finding(), after=-7200)
    row = passes.row
    assert (row["state"], row["episode"]) == ("open", 2)
    assert row["opened_at"] >= row["first_at"]


def test_a_clock_that_is_set_back_delays_no_end(passes: Passes) -> None:
    passes.look(finding())
    passes.look(after=-3600)
    assert not passes.quiet(5)
    (news,) = passes.look().resolved
    row = passes.row
    assert (news.subject, row["resolved_by"]) == ("loop/stage", "cleared")
    assert row["resolved_at"] == row["opened_at"], "not before it began"


def test_a_class_that_nobody_declared_is_an_error(passes: Passes) -> None:
    with pytest.raises(KeyError):
        passes.look(finding(), class_="bad_luck")
    with pytest.raises(ValueError, match=r"loop_failing found loop/stage twice in one pass"):
        passes.look(finding(), finding())


def test_a_class_has_a_bounded_number_of_active_incidents(
    passes: Passes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incidents, "MOST_ACTIVE", 3)
    many = [finding(f"loop/{number}") for number in range(5)]
    assert [news.subject for news in passes.look(*many).opened] == ["loop/0", "loop/1", "loop/2"]
    assert not passes.look(*many)
    passes.quiet()
    assert [news.subject for news in passes.look(*many[3:]).opened] == ["loop/3", "loop/4"]


# --- findings that are not open yet


@pytest.mark.usefixtures("patient")
class TestPending:
    def test_it_opens_when_it_has_been_so_for_long_enough(self, passes: Passes) -> None:
        assert not passes.look(finding())
        began = passes.now
        assert not passes.look(finding())
        assert not passes.look(finding())
        (news,) = passes.look(finding()).opened
        assert (news.subject, passes.row["opened_at"]) == ("loop/stage", began)
        assert passes.bench.rows("SELECT * FROM opsjobs.pending_findings") == []

    def test_a_complete_pass_without_it_starts_anew(self, passes: Passes) -> None:
        for _ in range(5):
            assert not passes.look(finding())
            assert not passes.look(finding())
            assert not passes.look()
        assert passes.bench.rows("SELECT * FROM opsjobs.incidents") == []

    def test_an_incomplete_pass_without_it_keeps_it(self, passes: Passes) -> None:
        passes.look(finding())
        passes.look(is_complete=False)
        passes.look(is_complete=False)
        assert passes.look(finding()).opened

    def test_a_long_time_without_a_look_does_not_count(self, passes: Passes) -> None:
        passes.look(finding())
        assert not passes.look(finding(), after=3600)
        assert not passes.look(finding())
        assert not passes.look(finding())
        assert passes.look(finding()).opened

    def test_an_ended_incident_is_reopened_only_after_that_time_too(self, passes: Passes) -> None:
        passes.look(finding(since=passes.now - timedelta(minutes=1)))
        passes.quiet()
        assert not passes.look(finding())
        assert passes.row["state"] == "resolved"
        passes.look(finding())
        passes.look(finding())
        assert passes.look(finding()).reopened

    def test_the_data_may_say_that_it_has_been_so_for_long(self, passes: Passes) -> None:
        assert passes.look(finding(since=passes.now - timedelta(seconds=30))).opened

    def test_retention_removes_what_was_left(self, passes: Passes) -> None:
        passes.look(finding())
        settings, later = passes.bench.host.settings, passes.now + timedelta(days=2)
        assert (
            retention.count_retainable(passes.bench.connection, settings, later)["pending_findings"]
            == 1
        )
        removed = retention.retain(passes.bench.connection, settings, later)
        assert removed["pending_findings"] == 1


# --- acknowledged


def test_an_acknowledgement_ends_at_its_time(passes: Passes) -> None:
    passes.look(finding())
    passes.acknowledge(minutes=1)
    passes.look(finding(), after=30)
    assert passes.row["state"] == "acknowledged"
    passes.look(finding(), after=30)
    row = passes.row
    assert (row["state"], row["acknowledged_by"], row["acknowledged_until"]) == ("open", None, None)
    assert ("lapsed", {"why": "its time is over"}) in [
        (each["kind"], each["facts"])
        for each in passes.bench.rows("SELECT * FROM opsjobs.evidence")
    ]


def test_its_time_ends_also_when_no_pass_is_complete(passes: Passes) -> None:
    passes.look(finding())
    passes.acknowledge(minutes=1)
    passes.look(is_complete=False, after=61)
    assert passes.row["state"] == "open"


@pytest.mark.parametrize(
    ("worse", "state"),
    [
        ({"affected": 7}, "acknowledged"),
        ({"affected": 8}, "open"),
        ({"affected": 1}, "acknowledged"),
        ({"affected": 4, "severity": "critical"}, "open"),
        ({"affected": 4, "severity": "notice"}, "acknowledged"),
    ],
)
def test_it_ends_when_the_incident_gets_worse(
    passes: Passes, worse: dict[str, Any], state: str
) -> None:
    passes.look(finding(affected=4))
    passes.acknowledge(hours=1)
    passes.look(finding(**worse))
    assert passes.row["state"] == state


def test_an_acknowledged_incident_is_cleared_too(passes: Passes) -> None:
    passes.look(finding())
    passes.acknowledge(hours=1)
    assert passes.quiet().resolved
    row = passes.row
    assert (row["state"], row["acknowledged_by"]) == ("resolved", None)


# --- evidence


def saw(number: int) -> tuple[Observation, ...]:
    return (Observation("pass_failed", "loop_runs", {"error": f"error {number}"}),)


def test_equal_evidence_is_one_row_with_a_count(passes: Passes) -> None:
    both = (*saw(1), Observation("process", "loop_runs", {"process": "p"}))
    for _ in range(4):
        passes.look(finding(evidence=both))
    passes.look(finding(evidence=saw(2)))
    assert passes.evidence() == [
        (1, "opened", 1),
        (1, "pass_failed", 4),
        (1, "process", 4),
        (1, "pass_failed", 1),
    ]


def test_evidence_of_another_source_is_another_row(passes: Passes) -> None:
    passes.look(finding(evidence=saw(1)))
    passes.look(finding(evidence=(replace(saw(1)[0], source="worker"),)))
    assert [kind for _, kind, _ in passes.evidence()] == ["opened", "pass_failed", "pass_failed"]


def test_each_episode_has_its_own_evidence_from_its_begin_to_its_end(passes: Passes) -> None:
    passes.look(finding(evidence=saw(1)))
    passes.quiet()
    passes.look(finding(evidence=saw(1)))
    assert passes.evidence() == [
        (1, "opened", 1),
        (1, "pass_failed", 1),
        (1, "resolved", 1),
        (2, "reopened", 1),
        (2, "pass_failed", 1),
    ]


def test_an_episode_keeps_its_first_and_its_newest_rows_and_says_what_it_folded(
    passes: Passes,
) -> None:
    for number in range(250):
        passes.look(finding(evidence=saw(number)))
    rows = passes.bench.rows("SELECT * FROM opsjobs.evidence ORDER BY first_at, id")
    assert len(rows) == 20 + 1 + 80
    errors = [row["facts"].get("error") for row in rows]
    assert errors[:20] == [None, *(f"error {number}" for number in range(19))]
    assert errors[21:] == [f"error {number}" for number in range(170, 250)]
    folded = rows[20]
    assert (folded["kind"], folded["count"], folded["facts"]) == ("folded", 151, {"rows": 151})
    assert rows[19]["last_at"] < folded["first_at"] < folded["last_at"] < rows[21]["first_at"]


# --- what follows from what


def test_what_opens_while_its_cause_is_open_follows_from_it(passes: Passes) -> None:
    (cause,) = passes.look(Finding("loop/cron", facts=CRON), class_="loop_silent").opened
    passes.look(finding())
    assert passes.row["because_of"] == cause.id
    passes.look(finding())
    assert passes.row["because_of"] == cause.id


def test_what_was_open_before_its_cause_does_not_follow_from_it(passes: Passes) -> None:
    passes.look(finding())
    passes.look(Finding("loop/cron", facts=CRON), class_="loop_silent")
    passes.look(finding())
    assert passes.row["because_of"] is None


def test_a_cause_that_is_found_later_but_began_earlier_is_noted(passes: Passes) -> None:
    passes.look(finding())
    earlier = passes.now - timedelta(minutes=1)
    (cause,) = passes.look(
        Finding("loop/cron", facts=CRON, since=earlier), class_="loop_silent"
    ).opened
    assert passes.row["because_of"] == cause.id


def test_when_the_cause_is_over_it_follows_from_nothing(passes: Passes) -> None:
    passes.look(Finding("loop/cron", facts=CRON), class_="loop_silent")
    passes.look(finding())
    for _ in range(8):
        passes.look(class_="loop_silent")
    passes.look(finding())
    assert passes.row["because_of"] is None


CRON = {"loop": "cron", "process": "p", "last_at": "2026-11-25T14:02:10+00:00"}


# --- races


def test_two_passes_open_one_incident(passes: Passes, bench: Bench) -> None:
    connections = [db.connect_apart(bench.host.engine) for _ in range(2)]
    many = [finding(f"loop/{number}", evidence=saw(1)) for number in range(20)]
    answers = race(
        lambda: passes.look_on(connections[0], *many),
        lambda: passes.look_on(connections[1], *reversed(many)),
    )
    assert sorted(news.subject for answer in answers for news in answer.opened) == sorted(
        each.subject for each in many
    )
    assert len(bench.rows("SELECT * FROM opsjobs.incidents")) == 20
    kinds = bench.rows("SELECT kind, sum(count) FROM opsjobs.evidence GROUP BY 1")
    assert {row["kind"]: int(row["sum"]) for row in kinds}["opened"] == 20
    for connection in connections:
        connection.close()


def test_two_passes_reopen_once(passes: Passes, bench: Bench) -> None:
    passes.look(finding())
    passes.quiet()
    connections = [db.connect_apart(bench.host.engine) for _ in range(2)]
    answers = race(*(lambda each=each: passes.look_on(each, finding()) for each in connections))
    assert sum(len(answer.reopened) for answer in answers) == 1
    assert (passes.row["episode"], passes.row["seen_count"]) == (2, 3)
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("time", range(4))
def test_two_detect_loops_open_each_incident_once(
    bench: Bench, make_bench: MakeBench, time: int
) -> None:
    now, other = read_clock(bench.connection), make_bench("other")
    for number in range(10):
        make_bench(f"missing-{number}")
    gone = "UPDATE opsjobs.workers SET state = 'missing', ended_at = %s WHERE name LIKE 'missing%%'"
    bench.rows(f"{gone} RETURNING 1", now)
    race(
        *(
            lambda each=each: Runner(LOOP, each.host, each.name).run_once(each.connection, now)
            for each in (bench, other)
        )
    )
    episodes = bench.rows("SELECT episode FROM opsjobs.incidents WHERE state = 'open'")
    assert [row["episode"] for row in episodes] == [1] * 10
    kinds = bench.rows("SELECT kind, sum(count)::int AS n FROM opsjobs.evidence GROUP BY 1")
    assert {row["kind"]: row["n"] for row in kinds}["opened"] == 10
    assert bench.rows("SELECT error FROM opsjobs.loop_runs WHERE error IS NOT NULL") == []


@pytest.mark.sessions
def test_a_pass_that_dies_half_way_leaves_nothing(passes: Passes, bench: Bench) -> None:
    """Its session is ended before the commit, as when its process is killed."""
    passes.look(finding("loop/expire"))
    dying = db.connect_apart(bench.host.engine)
    (pid,) = dying.execute("SELECT pg_backend_pid()").fetchone() or ()

    def die() -> None:
        with dying.transaction():
            incidents.apply_pass(dying, CLASS, DetectorPass([finding(evidence=saw(1))]), passes.now)
            bench.rows("SELECT pg_terminate_backend(%s)", pid)
            dying.execute("SELECT 1")

    with pytest.raises(psycopg.OperationalError):
        die()
    assert [row["subject"] for row in bench.rows("SELECT * FROM opsjobs.incidents")] == [
        "loop/expire"
    ]
    assert [news.subject for news in passes.look(finding(evidence=saw(1))).opened] == ["loop/stage"]


# --- after the commit


def test_signals_and_log_tell_what_became_of_it(
    passes: Passes, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[tuple[str, Any]] = []
    receivers = {
        signals.incident_opened: lambda _, **facts: sent.append(("opened", facts)),
        signals.incident_reopened: lambda _, **facts: sent.append(("reopened", facts)),
        signals.incident_resolved: lambda _, **facts: sent.append(("resolved", facts)),
    }
    for signal, receiver in receivers.items():
        signal.connect(receiver)
    incidents.announce(bench.host, passes.look(finding()))
    incidents.announce(bench.host, passes.quiet())
    incidents.announce(bench.host, passes.look(finding()))
    id_ = passes.row["id"]
    assert [(word, facts["incident"], facts["episode"]) for word, facts in sent] == [
        ("opened", id_, 1),
        ("resolved", id_, 1),
        ("reopened", id_, 2),
    ]
    assert sent[0][1] == {
        "incident": id_,
        "class_": CLASS,
        "subject": "loop/stage",
        "severity": "warning",
        "episode": 1,
        "title": "The loop stage fails",
    }
    assert f"incident {id_} opened (warning): The loop stage fails" in caplog.messages


# --- retention


def test_retention_removes_ended_incidents_and_old_evidence(passes: Passes, bench: Bench) -> None:
    passes.look(finding(evidence=saw(1)))
    passes.quiet()
    passes.look(finding("loop/cron", evidence=saw(1)))
    settings = replace(bench.host.settings, keep_incidents_days=10)
    soon, later = passes.now + timedelta(days=9), passes.now + timedelta(days=11)
    for now, expected in (
        (soon, {"incidents": 0, "evidence": 0}),
        (later, {"incidents": 1, "evidence": 2}),
    ):
        counted = retention.count_retainable(bench.connection, settings, now)
        removed = retention.retain(bench.connection, settings, now)
        assert {what: counted[what] for what in expected} == expected
        assert {what: removed[what] for what in expected} == expected
    assert [row["subject"] for row in bench.rows("SELECT * FROM opsjobs.incidents")] == [
        "loop/cron"
    ]
    assert bench.rows("SELECT * FROM opsjobs.evidence") == []
