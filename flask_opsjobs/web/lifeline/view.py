"""Shows Lifeline: the incidents that need a person, then workers, loops and the integrity check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Response
from markupsafe import Markup

from ...actions.registry import ACTIONS
from ...core.reading import Reading
from ...core.round_trips import start_reading, values_of
from ...core.words import agree, counted
from ...engine.redis.unknown_workers import find_unknown
from ...escalations.queries import find_last_escalations
from ...lifeline import queries
from ...lifeline.detectors import DETECTORS, detector_of
from ...lifeline.integrity import IntegrityRow, list_integrity_checks
from ...lifeline.lifecycle import MEANINGS_OF_SEVERITIES, SEVERITIES
from ...lifeline.loop_runs import LoopRow, Watch, list_watches
from ...lifeline.queries import IncidentCounts, IncidentFilter, IncidentPage, IncidentRow, Repaired
from ...lifeline.watch import list_abandoned
from ...operations.queries import page_of_open_operations
from ...workers.queries import list_workers
from ..app import access, pages, references
from ..app.host import host, reading
from .loops_svg import begin_of_day, draw_loops
from .steps import first_step

# The tabs, with the state of the incidents that each lists.
TABS = {"open": "open", "acknowledged": "acknowledged", "ended": "resolved"}
_MOST_ACKNOWLEDGED = 20
_MOST_WORKERS = 12
_MOST_OPERATIONS = 5


def page() -> Response:
    """The document."""
    query = _read_query()
    made, now = _part(query)
    return pages.page("lifeline/page.html", "lifeline", "Lifeline", now, live=made, query=query)


def live() -> Response:
    """The fragment that refreshes."""
    return pages.fragment(_part(_read_query())[0])


def _read_query() -> Mapping[str, str]:
    """The tab, the filters and the place in the list, as the address has them."""
    known = {"state": TABS, "class": DETECTORS, "severity": SEVERITIES}
    query = references.read_list_query(known, "after")
    references.require_place(query, _place(query))
    return query


def _place(query: Mapping[str, str]) -> tuple[str, datetime, int] | None:
    """Where the page begins: severity, time and id of the last row before it."""
    severity, _, place = query.get("after", "").partition("-")
    found = references.read_place(place) if severity in SEVERITIES else None
    return None if found is None else (severity, *found)


def _place_after(row: IncidentRow) -> str:
    return f"{row.severity}-{references.write_place(row.opened_at, row.id)}"


def _part(query: Mapping[str, str]) -> tuple[Markup, datetime]:
    with reading() as read:
        facts = values_of(_read(read, query))
    workers = find_unknown(facts.pop("workers"), host())
    order = {"missing": 0, "late": 1}
    made = pages.part(
        "lifeline/_live.html",
        read.now,
        workers=sorted(workers, key=lambda worker: order.get(worker.state, 2))[:_MOST_WORKERS],
        many_workers=Counter(worker.state for worker in workers),
        **facts,
    )
    return made, read.now


def _read(read: Reading, query: Mapping[str, str]) -> dict[str, Any]:
    """What the page shows, as far as Postgres tells it."""
    tab = query.get("state", "open")
    is_first = "after" not in query
    is_whole = tab == "open" and is_first and not (query.keys() & {"class", "severity"})
    session, midnight = read.session, read.now.astimezone(UTC)
    midnight = midnight.replace(hour=0, minute=0, second=0, microsecond=0)
    tallying = start_reading(session, queries.count_active_incidents)
    watching = start_reading(
        session, list_watches, begin_of_day(read.now), read.now, host().settings.loops_off
    )
    checking = start_reading(session, list_integrity_checks)
    repairing = start_reading(session, queries.count_repaired, midnight)
    more: dict[str, Any] = {
        "ended": start_reading(session, queries.count_ended),
        "adopted": start_reading(session, queries.count_adopted),
        "following": start_reading(session, queries.list_following) if is_whole else (),
        "operations": start_reading(session, page_of_open_operations, limit=_MOST_OPERATIONS)
        if is_whole and access.may(access.OPERATIONS)
        else (),
    }
    workers, listing = start_reading(read, _workers), start_reading(read, _rows, query)
    notices: Sequence[IncidentRow] = ()
    acknowledged: Sequence[IncidentRow] = ()
    if is_whole:
        only, known = IncidentFilter(severity="notice"), IncidentFilter(state="acknowledged")
        noticing = start_reading(session, queries.page_of_open_incidents, only, limit=10)
        knowing = start_reading(session, queries.page_of_incidents, known, limit=_MOST_ACKNOWLEDGED)
        notices, acknowledged = noticing.value[0], knowing.value.rows
    tally, watches, checks = tallying.value, watching.value, checking.value
    repaired, (rows, has_more) = repairing.value, listing.value
    episodes = {row.id: row.episode for row in (*rows, *acknowledged)}
    return dict(
        tab=tab,
        tabs=TABS,
        query=query,
        is_first=is_first,
        classes=DETECTORS,
        severities=SEVERITIES,
        meanings=MEANINGS_OF_SEVERITIES,
        groups=_groups(rows) if tab == "open" else [(tab, rows)],
        acknowledged=acknowledged,
        escalations=find_last_escalations(read.session, episodes),
        notices=notices,
        repaired=repaired,
        repaired_words=_say_repaired(repaired),
        is_whole=is_whole,
        older=_place_after(rows[-1]) if has_more else None,
        first_step=first_step,
        tally=tally,
        say=_say(tally, watches, checks),
        watches=watches,
        drawn=draw_loops(watches, read.now),
        integrity=checks,
        is_checked_now=_runs(watches, "check_integrity"),
        actions=ACTIONS,
        **more,
        **workers.value,
    )


def _rows(read: Reading, query: Mapping[str, str]) -> tuple[Sequence[IncidentRow], bool]:
    tab, place = query.get("state", "open"), _place(query)
    wanted = IncidentFilter(query.get("class", ""), query.get("severity", ""), TABS[tab])
    if tab == "open":
        return queries.page_of_open_incidents(read.session, wanted, after=place)
    older_than = None if place is None else place[1:]
    found: IncidentPage = queries.page_of_incidents(read.session, wanted, older_than=older_than)
    return found.rows, found.older is not None


def _groups(rows: Sequence[IncidentRow]) -> list[tuple[str, Sequence[IncidentRow]]]:
    """The rows by severity, the worst first."""
    by_severity = [(each, [row for row in rows if row.severity == each]) for each in SEVERITIES]
    return [(severity, found) for severity, found in by_severity if found]


def _workers(read: Reading) -> dict[str, Any]:
    """All workers that are missing, late and alive, and how many jobs each left."""
    driver: Any = read.session.connection().connection.driver_connection
    leaving = start_reading(read.session, lambda _: list_abandoned(driver))
    workers = list_workers(read.session, read.now, host().settings.late_seconds)
    left = Counter({each.worker_id: each.jobs + each.reserved for each in leaving.value})
    return {
        "workers": workers,
        "left": left,
        "rescue": host().settings.rescue,
    }


# --- in words


def _runs(watches: Sequence[Watch], name: str) -> bool:
    loop = _find_loop(watches, name)
    return loop is not None and loop.is_running


def _find_loop(watches: Sequence[Watch], name: str) -> LoopRow | None:
    return next((watch.loop for watch in watches if watch.loop.loop == name), None)


def _say(
    tally: IncidentCounts, watches: Sequence[Watch], checks: Sequence[IntegrityRow]
) -> tuple[str, str, str, datetime | None]:
    """Status and shape, the sentence, what follows it, and since when nobody looks."""
    number, critical = tally.unattended, tally.open["critical"]
    whole = _say_whole(watches, checks)
    if not _runs(watches, "detect"):
        loop = _find_loop(watches, "detect")
        known = (
            f" {counted(number, 'incident')} {agree(number, 'was', 'were')} open then."
            if number
            else ""
        )
        fact = "Nobody looks for incidents: the loop `detect` does not run."
        rest = f"What began since is not known.{known} Start `flask opsjobs run`."
        return "open", fact, rest, loop.last_at if loop else None
    if number:
        worst = (
            f", {critical:,} of them {agree(critical, 'is', 'are')} critical" if critical else ""
        )
        if critical == number:
            worst = f", and {agree(number, 'it is', 'all are')} critical"
        fact = f"{counted(number, 'incident')} {agree(number, 'needs', 'need')} a person{worst}."
        return "open" if critical else "warned", fact, whole, None
    rest = whole
    if tally.acknowledged:
        is_known = agree(tally.acknowledged, "is", "are")
        rest = f"{tally.acknowledged:,} {is_known} acknowledged. {whole}"
    return "healthy", "No incident needs a person.", rest, None


def _say_whole(watches: Sequence[Watch], checks: Sequence[IntegrityRow]) -> str:
    if not checks:
        return ""
    if not _runs(watches, "check_integrity"):
        return "Whether a job is lost is not known: no integrity check is made."
    if any(check.difference for check in checks):
        return "The integrity check shows a difference."
    return "No managed job is lost: the integrity check shows no difference."


def _say_repaired(repaired: Sequence[Repaired]) -> str:
    parts = [
        f"{each.incidents:,} of the class {detector_of(each.class_).title.lower()}"
        for each in repaired
    ]
    return ", ".join(parts)
