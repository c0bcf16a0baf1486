"""Each query of the audit walks the index it is meant to and stops, on 50,000 rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.audit import queries
from flask_opsjobs.audit.filter import AuditFilter
from flask_opsjobs.core.reading import Reading
from flask_opsjobs.notes.queries import list_notes
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

# Not by the writer, which takes its time: what it would sign is of no concern here.
_FILL = """
INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, targets, reason, outcome, code,
    request_id, canonical, key_id, previous_hash, hash)
SELECT n, '2026-11-20 00:00:00Z'::timestamptz + n * interval '1 second', 'actor_' || n % 9, 'page',
    'action_' || n % 7, 'job/' || n % 5000,
    ARRAY['job/' || n % 5000, 'queue/' || n % 3] || CASE WHEN n <= 300 THEN ARRAY['old'] ELSE '{}' END
        || CASE WHEN n % 1000 = 0
            THEN ARRAY['operation/' || n / 10000, 'incident/' || n / 5000] ELSE '{}' END,
    'reason ' || n, CASE WHEN n % 50 = 0 THEN 'refused' ELSE 'done' END,
    CASE WHEN n % 50 = 0 THEN 'drifted' END,
    CASE WHEN n % 2 = 0 THEN 'request-' || n / 10 END, '{}', 'key', '', 'x'
FROM generate_series(1, 50000) AS n
"""


class AuditPlans(Plans):
    """The plans of the statements that read the audit."""

    about = "opsjobs.audit_"

    @property
    def most_fetched(self) -> int:
        """The most rows that any scan fetched: entries of an index that led to no row do not count."""
        return max(
            int(node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
            for _, nodes in self.seen
            for node in nodes
            if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Index Scan"
        )


@pytest.fixture(scope="module", params=["counted", "never counted"])
def module_app(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """A host with 50,000 decisions, with and without statistics of them."""

    def fill(session: Session) -> None:
        session.execute(text(_FILL))
        session.execute(text("UPDATE opsjobs.audit_head SET sequence = 50000, hash = 'x'"))
        session.commit()
        if request.param == "counted":
            session.execute(text("ANALYZE opsjobs.audit_events"))

    with app_on(databases, fill) as app:
        yield app


@pytest.fixture
def plans(module_app: Flask) -> Iterator[tuple[AuditPlans, Reading]]:
    """A reading as pages have it, with its plans."""
    with reading_with(module_app, AuditPlans) as plans:
        yield plans


def test_the_notes_on_a_subject_walk_their_index(plans: tuple[AuditPlans, Reading]) -> None:
    seen, read = plans
    assert list_notes(read.session, "job/7") == []
    assert seen.indexes == {"audit_notes", "audit_head_pkey"}
    assert seen.most_fetched <= 1


# Filter, the index walked, and how many of its rows may be read for a page of 25.
PAGES = [
    ({}, "audit_events_pkey", 26),
    ({"actor": "actor_3"}, "audit_by_actor", 26),
    ({"actor": "nobody"}, "audit_by_actor", 0),
    ({"action": "action_3"}, "audit_by_action", 26),
    ({"outcome": "refused"}, "audit_by_outcome", 26),
    ({"outcome": "done"}, "audit_by_outcome", 26),
    ({"actor": "actor_3", "outcome": "refused"}, "audit_by_actor", queries.WINDOW),
    ({"action": "action_3", "outcome": "refused"}, "audit_by_action", queries.WINDOW),
    ({"q": "reason 4"}, "audit_events_pkey", queries.WINDOW),
    ({"q": "found nowhere"}, "audit_events_pkey", queries.WINDOW),
    ({"q": "found nowhere", "actor": "actor_3"}, "audit_by_actor", queries.WINDOW),
    ({"request_id": "request-4000"}, "audit_by_request", 26),
    ({"request_id": "request-4000", "actor": "actor_3", "since": "3d"}, "audit_by_request", 26),
    ({"since": "2026-11-20T09:00"}, "audit_by_time", 26),
    ({"until": "2026-11-20T12:00"}, "audit_by_time", 26),
    ({"since": "2026-11-20T09:00", "until": "2026-11-20T12:00"}, "audit_by_time", 26),
    ({"since": "2h"}, "audit_by_time", 0),
    ({"until": "2026-11-20T12:00", "actor": "actor_3"}, "audit_by_time", queries.WINDOW),
    ({"until": "2026-11-20T12:00", "q": "reason 4"}, "audit_by_time", queries.WINDOW),
]


@pytest.mark.parametrize("cursor", [{}, {"before": 40_000}, {"after": 40_000}], ids=str)
@pytest.mark.parametrize(("query", "index", "most"), PAGES, ids=lambda value: str(value)[:50])
def test_a_page_walks_one_index_and_stops(
    query: dict[str, str],
    index: str,
    most: int,
    cursor: dict[str, Any],
    plans: tuple[AuditPlans, Reading],
) -> None:
    seen, read = plans
    queries.page_of_events(read.session, AuditFilter.from_query(query), read.now, **cursor)
    # The rows that fit are then fetched by their sequences.
    assert index in seen.indexes
    assert seen.indexes <= {index, "audit_events_pkey", "audit_head_pkey"}
    assert seen.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan", "Sort", "Incremental Sort"})
    assert seen.most_rows <= most + 26


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"operation": "3"}, range(39_000, 29_000, -1000)),
        ({"incident": "incident/7"}, range(39_000, 34_000, -1000)),
        ({"operation": "3", "incident": "7", "q": "queue/0"}, (39_000, 36_000)),
        ({"operation": "3", "since": "2026-11-20T10:00"}, (39_000, 38_000, 37_000, 36_000)),
    ],
    ids=str,
)
def test_operations_and_incidents_are_found_by_the_index_of_targets(
    query: dict[str, str], found: Sequence[int], plans: tuple[AuditPlans, Reading]
) -> None:
    seen, read = plans
    page = queries.page_of_events(read.session, AuditFilter.from_query(query), read.now)
    assert [row.sequence for row in page.rows] == list(found)
    assert "audit_by_target" in seen.indexes
    assert "Seq Scan" not in seen.kinds
    assert seen.most_fetched <= 26


@pytest.mark.parametrize("outcome", [None, "done"])
def test_a_target_is_found_by_the_index_of_targets(
    outcome: str | None, plans: tuple[AuditPlans, Reading]
) -> None:
    seen, read = plans
    page = queries.page_of_events(read.session, AuditFilter(q="job/42", outcome=outcome), read.now)
    assert [row.sequence for row in page.rows] == list(range(45042, 0, -5000))
    assert "audit_by_target" in seen.indexes
    assert "Seq Scan" not in seen.kinds
    assert seen.most_fetched <= 26


def test_the_decisions_on_a_job_are_found_by_the_index_of_targets(
    plans: tuple[AuditPlans, Reading],
) -> None:
    seen, read = plans
    found = queries.list_events_of(read.session, "job/42", limit=3)
    assert [row.sequence for row in found] == [45042, 40042, 35042]
    assert seen.indexes == {"audit_by_target", "audit_head_pkey", "audit_events_pkey"}
    assert seen.most_fetched <= 10  # the newest of all are not read, since few name it
    setting = read.session.execute(text("SHOW enable_bitmapscan")).scalar_one()
    assert setting == "off"  # as it was


def test_the_newest_decisions_by_some_actions_are_found_by_the_index_of_actions(
    plans: tuple[AuditPlans, Reading],
) -> None:
    seen, read = plans
    found = queries.list_newest_of(read.session, ["action_1", "action_4", "unheard_of"], limit=4)
    newest = [sequence for sequence in range(50_000, 0, -1) if sequence % 7 in (1, 4)]
    assert [row.sequence for row in found] == newest[:4]
    assert seen.indexes == {"audit_by_action", "audit_head_pkey"}
    assert seen.most_fetched <= 2 * 4


def test_a_target_of_very_many_is_read_in_time(plans: tuple[AuditPlans, Reading]) -> None:
    seen, read = plans
    found = queries.list_events_of(read.session, "queue/1", limit=3)
    assert [row.sequence for row in found] == [49_999, 49_996, 49_993]
    assert "Seq Scan" not in seen.kinds
    # 16,667 decisions name it; of their rows, 200 tell that they are many,
    # and the newest are met on the way down.
    assert seen.most_fetched <= queries.WINDOW
    assert seen.indexes == {"audit_by_target", "audit_events_pkey", "audit_head_pkey"}


def test_a_target_of_very_many_long_ago_is_read_whole(plans: tuple[AuditPlans, Reading]) -> None:
    seen, read = plans
    found = queries.list_events_of(read.session, "old", limit=3)
    assert [row.sequence for row in found] == [300, 299, 298]
    assert "Seq Scan" not in seen.kinds
    assert seen.most_fetched <= queries.WINDOW


@pytest.mark.parametrize(
    ("read_some", "indexes", "most"),
    [
        (
            lambda session: queries.find_event(session, 40_000),
            {"audit_events_pkey", "audit_head_pkey"},
            1,
        ),
        (queries.list_actors, {"audit_by_actor", "audit_head_pkey"}, 10),
        (queries.list_actions, {"audit_by_action", "audit_head_pkey"}, 10),
        (queries.find_head, {"audit_events_pkey", "audit_head_pkey"}, 1),
        (lambda session: queries.list_links(session, 40_000, 100), {"audit_events_pkey"}, 100),
    ],
    ids=["find_event", "list_actors", "list_actions", "find_head", "list_links"],
)
def test_small_reads_touch_few_rows(
    read_some: Any, indexes: set[str], most: int, plans: tuple[AuditPlans, Reading]
) -> None:
    seen, read = plans
    assert read_some(read.session)
    assert seen.indexes == indexes
    assert seen.most_rows <= most
