"""The filter of decisions: one form in addresses and commands, and what it finds, in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.actions.registry import DOMAINS
from flask_opsjobs.audit import queries
from flask_opsjobs.audit.filter import AuditFilter, BadAuditFilter
from flask_opsjobs.host import Host

from .conftest import PAUSED

Append = Callable[..., int]
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    """Reads as a page does."""
    with Session(host.engine) as session:
        yield session


@pytest.mark.parametrize(
    ("query", "again"),
    [
        ({}, {}),
        ({"actor": " anna ", "action": "", "q": "job/4"}, {"actor": "anna", "q": "job/4"}),
        ({"since": "2h", "until": "30m"}, {"since": "2h", "until": "30m"}),
        ({"since": "2026-11-24"}, {"since": "2026-11-24T00:00:00"}),
        ({"since": "2026-11-24 09:00:30.5"}, {"since": "2026-11-24T09:00:30.500000"}),
        ({"until": "2026-11-24T09:00+02:00"}, {"until": "2026-11-24T07:00:00"}),
        ({"operation": "operation/7", "incident": "0012"}, {"operation": "7", "incident": "12"}),
        ({"request_id": "01J", "limit": "50"}, {"request_id": "01J", "limit": "50"}),
    ],
    ids=str,
)
def test_it_is_read_from_an_address_and_written_back(
    query: dict[str, str], again: dict[str, str]
) -> None:
    wanted = AuditFilter.from_query(query)
    assert wanted.to_query() == again
    assert AuditFilter.from_query(again) == wanted
    assert wanted.is_given == bool(again.keys() - {"limit"})


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"since": "soon"}, "since: 'soon' is no time; write 2h"),
        ({"until": "0h"}, "until: '0h' is no time"),
        ({"since": "2026-13-01"}, "is no time"),
        ({"since": "9999-12-31T23:00-02:00"}, "is no time"),
        ({"since": "1h", "until": "2h"}, "since: is not before until"),
        ({"since": "60m", "until": "1h"}, "since: is not before until"),
        ({"since": "2026-11-24T11:00", "until": "2026-11-24T11:00"}, "since: is not before until"),
        ({"since": "2026-11-25", "until": "2026-11-24"}, "since: is not before until"),
        ({"operation": "seven"}, "operation: 'seven' is no id; write 7 or operation/7"),
        ({"incident": "operation/7"}, "incident: 'operation/7' is no id"),
        ({"incident": "-7"}, "is no id"),
        ({"operation": str(2**63)}, "is no id"),
        ({"request_id": "a\x00"}, "request_id: holds a control character"),
        ({"request_id": "a" * 201}, "request_id: has at most 200 characters"),
        ({"outcome": "maybe"}, "outcome: there is no outcome 'maybe'; known are done, refused"),
        ({"limit": "7"}, "limit: a page has 25, 50, 100 decisions, not 7"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_named(query: dict[str, str], why: str) -> None:
    with pytest.raises(BadAuditFilter) as caught:
        AuditFilter.from_query(query)
    assert why in str(caught.value)


def _found(session: Session, query: dict[str, str], now: datetime = NOON) -> list[int]:
    page = queries.page_of_events(session, AuditFilter.from_query(query), now)
    return [row.sequence for row in page.rows]


@pytest.fixture
def hours(append: Append) -> None:
    """A decision at each full hour from 6 to 12, by two people in turn, in requests of two."""
    for number in range(7):
        append(
            at=NOON - timedelta(hours=6 - number),
            actor="anna" if number % 2 else "ben",
            request_id=f"request-{number // 2}",
            targets=("operation/4", "job/1") if number == 3 else ("job/1", "incident/9"),
        )


@pytest.mark.usefixtures("hours")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"since": "2h"}, [7, 6, 5]),
        ({"until": "2h"}, [4, 3, 2, 1]),
        ({"since": "4h", "until": "2026-11-24T11:00"}, [5, 4, 3]),
        ({"since": "4h", "actor": "anna"}, [6, 4]),
        ({"request_id": "request-1"}, [4, 3]),
        ({"request_id": "request-1", "actor": "anna"}, [4]),
        ({"request_id": "request"}, []),
        ({"operation": "4"}, [4]),
        ({"incident": "9", "request_id": "request-1"}, [3]),
        ({"incident": "9", "since": "1h", "q": "vendor"}, [7, 6]),
        ({"incident": "9", "operation": "4"}, []),
        ({"q": "job/1", "until": "5h"}, [1]),
    ],
    ids=str,
)
def test_it_finds(query: dict[str, str], found: list[int], session: Session) -> None:
    assert _found(session, query) == found


# A note is about a target of another domain.
@pytest.mark.parametrize("kind", [domain for domain in DOMAINS if domain != "note"])
def test_a_target_of_any_action_means_exactly_that_one(
    kind: str, append: Append, session: Session
) -> None:
    for number in (70, 7):
        append(targets=(f"{kind}/{number}",))
    assert _found(session, {"q": f"{kind}/7"}) == [2]
    assert _found(session, {"q": f"{kind}"}) == [2, 1]


@pytest.mark.usefixtures("hours")
def test_a_span_ends_now(session: Session) -> None:
    assert _found(session, {"since": "1h"}, NOON + timedelta(minutes=30)) == [7]
    assert _found(session, {"since": "1h"}, NOON + timedelta(hours=2)) == []


def _walk(session: Session, wanted: AuditFilter) -> list[list[int]]:
    """The pages from the newest to the oldest; going back from each shows the one before it."""
    pages: list[list[int]] = []
    page = queries.page_of_events(session, wanted, NOON)
    while True:
        pages.append([row.sequence for row in page.rows])
        if page.newer is not None and pages[:-1]:
            back = queries.page_of_events(session, wanted, NOON, after=page.newer)
            assert [row.sequence for row in back.rows] == pages[-2]
        if page.older is None:
            return pages
        page = queries.page_of_events(session, wanted, NOON, before=page.older)


def test_pages_of_a_range_follow_each_other_where_the_clock_was_set_back(
    append: Append, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    for minutes in (1, 2, 3, 10, 10, 10, 4, 5, 9, 9, 11, 12):
        append(at=NOON - timedelta(hours=1) + timedelta(minutes=minutes))
    rows = [
        (row.at, row.sequence) for row in queries.page_of_events(session, AuditFilter(), NOON).rows
    ]
    wanted = replace(AuditFilter(since="2h"), limit=2)
    assert [*chain.from_iterable(_walk(session, wanted))] == [
        sequence for _, sequence in sorted(rows)[::-1]
    ]
    assert [at for at, _ in rows] != sorted((at for at, _ in rows), reverse=True)
    monkeypatch.setattr(queries, "WINDOW", 3)
    every = _walk(session, wanted.but(actor="ops-demo"))
    assert [*chain.from_iterable(every)] == [sequence for _, sequence in sorted(rows)[::-1]]


def test_a_range_with_few_fitting_rows_is_searched_in_windows(
    append: Append, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "WINDOW", 3)
    for number in range(12):
        at = PAUSED.at + timedelta(minutes=number)
        append(at=at, actor="anna" if number in (1, 8) else "ben")
    wanted = AuditFilter(actor="anna", until="1h")
    pages: list[Any] = [queries.page_of_events(session, wanted, NOON)]
    while pages[-1].older is not None:
        pages.append(queries.page_of_events(session, wanted, NOON, before=pages[-1].older))
    assert [[row.sequence for row in page.rows] for page in pages] == [[], [9], [], [2], []]
    assert [page.looked_at for page in pages] == [3, 3, 3, 3, None]
    newer = queries.page_of_events(session, wanted, NOON, after=pages[2].newer)
    assert [row.sequence for row in newer.rows] == [9]
