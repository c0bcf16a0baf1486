"""Explains why many jobs wait: groups them by the first reason of each, as the explanation of one finds it.

Jobs of which all that decides is the same are one kind. The first reason of one of them is that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from ..core.words import counted, moment
from ..jobs.search.filter import Condition, Ids, JobFilter
from .evidence import Evidence, JobEvidence
from .explain import list_lacking, list_reasons
from .reason_kinds import CODES, KINDS, Reason

# An address with more ids would be refused by some web servers.
_MOST_IDS = 200
_NOTHING = "nothing blocks them, and they go on by themselves"
_RUN_BY_RQ = "they are plain RQ jobs, which RQ and its workers run"
# What the jobs of a group share, so that its times are the same for all.
_SHARED = ("queue", "task", "limiter", "loop")


@dataclass(frozen=True)
class WaitingKind:
    """Jobs of which all that decides is the same. `evidence` is that of one of them.

    `ends` are the earliest and the latest due time and deadline of them.
    """

    evidence: Evidence
    ids: Sequence[int]
    dispatch_nos: Sequence[int]
    ends: tuple[tuple[datetime, datetime | None], tuple[datetime, datetime | None]]

    def just(self, job: JobEvidence) -> WaitingKind:
        """The kind of one of its jobs alone."""
        ends = (job.due_at, job.deadline_at)
        evidence = replace(self.evidence, job=job)
        return WaitingKind(evidence, (job.id,), (job.dispatch_no,), (ends, ends))

    def only(self, ids: Sequence[int], evidence: Evidence) -> WaitingKind:
        """Some of its jobs, with this evidence."""
        numbers = dict(zip(self.ids, self.dispatch_nos, strict=True))
        return replace(self, evidence=evidence, ids=ids, dispatch_nos=[numbers[id] for id in ids])

    def list_first_reasons(self) -> list[Reason | None]:
        """The first reason of the first and of the last of its jobs: they differ only in their times."""
        job = self.evidence.job
        return [
            next(list_reasons(replace(self.evidence, job=made)), None)
            for made in {
                replace(job, due_at=due, deadline_at=deadline): None for due, deadline in self.ends
            }
        ]


@dataclass(frozen=True)
class WaitingGroup:
    """Jobs that wait for the same first reason.

    `code` is None when they have none. `says` tells the reason of all. `by`, `quote` and `since` are a
    person's decision, as in a reason. `until` is when the first of them goes on, and `last_until` the last,
    when both are known. `search` finds just these jobs, when there is such a search. `example` is the oldest.
    """

    code: str | None
    says: str
    number: int
    helps: str
    passes: bool
    example: int
    by: str | None = None
    quote: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    last_until: datetime | None = None
    search: JobFilter | None = None

    @property
    def is_until_for_all(self) -> bool:
        """Whether all of them go on at the same time, to the second."""
        first, last = self.until, self.last_until
        return first is not None and last is not None and moment(first) == moment(last)

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """A dict for `json.dumps`; `clean` as in `Explanation.to_json`."""

        def iso(value: datetime | None) -> str | None:
            return None if value is None else value.astimezone(UTC).isoformat()

        return {
            "code": self.code,
            "says": clean(self.says),
            "number": self.number,
            "by": None if self.by is None else clean(self.by),
            "quote": None if self.quote is None else clean(self.quote),
            "since": iso(self.since),
            "until": iso(self.until),
            "last_until": iso(self.last_until),
            "helps": self.helps,
            "passes": self.passes,
            "example": self.example,
            "search": None if self.search is None else clean(self.search.box),
        }


@dataclass(frozen=True)
class WaitingExplanation:
    """Why the jobs of a search wait: how many do, grouped by their first reasons, the largest group first.

    `is_cut`: the jobs are the first that were found, and more may wait. `lacking` lists what could not be
    read. `says` sums it up in one sentence.
    """

    number: int
    groups: tuple[WaitingGroup, ...]
    is_cut: bool
    lacking: tuple[str, ...]
    read_at: datetime

    @property
    def says(self) -> str:
        """How many wait, and whether more may."""
        if self.is_cut:
            return f"Of the first {counted(self.number, 'job')} that were found; more may wait."
        if not self.number:
            return "No job waits."
        return f"{counted(self.number, 'job')} {'waits' if self.number == 1 else 'wait'}."

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """A dict for `json.dumps`.

        `clean` is called with every text that an application or a person may have written.
        """
        return {
            "number": self.number,
            "is_cut": self.is_cut,
            "says": self.says,
            "groups": [group.to_json(clean) for group in self.groups],
            "lacking": list(self.lacking),
            "read_at": self.read_at.isoformat(),
        }


def explain_kinds(
    kinds: Sequence[WaitingKind], wanted: JobFilter, now: datetime, *, is_cut: bool
) -> WaitingExplanation:
    """Group the kinds by the first reason of their jobs. Pure."""
    members: dict[tuple[str | None, str], list[tuple[WaitingKind, list[Reason | None]]]] = {}
    for kind in kinds:
        reasons = kind.list_first_reasons()
        key = _say(kind.evidence, reasons[0])
        members.setdefault(key, []).append((kind, reasons))
    groups = [_group(key, found, kinds, wanted) for key, found in members.items()]
    lacking = {
        text: None
        for found in members.values()
        for kind, reasons in found
        for text in list_lacking(kind.evidence, [one for one in reasons if one is not None])
        if not kind.evidence.job.is_adopted
    }
    return WaitingExplanation(
        number=sum(group.number for group in groups),
        groups=tuple(sorted(groups, key=_rank)),
        is_cut=is_cut,
        lacking=tuple(lacking),
        read_at=now,
    )


def _say(evidence: Evidence, reason: Reason | None) -> tuple[str | None, str]:
    """The code of a reason, and the sentence that says it of many jobs."""
    if reason is None:
        return None, _RUN_BY_RQ if evidence.job.is_adopted else _NOTHING
    kind = KINDS[reason.code]
    about = evidence.job.queue if kind.about == "queue" else reason.read.get(kind.about or "", "")
    return reason.code, kind.many.replace("{}", about)


def _rank(group: WaitingGroup) -> tuple[int, int, str]:
    place = len(CODES) if group.code is None else CODES.index(group.code)
    return -group.number, place, group.says


def _group(
    key: tuple[str | None, str],
    members: Sequence[tuple[WaitingKind, list[Reason | None]]],
    kinds: Sequence[WaitingKind],
    wanted: JobFilter,
) -> WaitingGroup:
    code, says = key
    mine = [kind for kind, _ in members]
    made = WaitingGroup(
        code=code,
        says=says,
        number=sum(len(kind.ids) for kind in mine),
        helps="" if code is None else KINDS[code].helps,
        passes=True,
        example=min(job_id for kind in mine for job_id in kind.ids),
        search=_find_search(mine, kinds, wanted),
    )
    if code is None:
        return made
    reasons = [reason for _, found in members for reason in found if reason is not None]
    is_shared = KINDS[code].about in _SHARED
    untils = [reason.until for reason in reasons if reason.until is not None]
    return replace(
        made,
        passes=all(reason.passes for reason in reasons),
        by=_same(reason.by for reason in reasons),
        quote=_same(reason.quote for reason in reasons),
        since=_same(reason.since for reason in reasons) if is_shared else None,
        until=min(untils, default=None),
        last_until=max(untils) if untils and len(untils) == len(reasons) else None,
    )


def _same(values: Iterable[Any]) -> Any:
    """The value that all of them are; None when they differ."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


def _find_search(
    mine: Sequence[WaitingKind], kinds: Sequence[WaitingKind], wanted: JobFilter
) -> JobFilter | None:
    """The search for just these jobs among all that wait; None when none is short enough.

    Made of the fewest of state, queue and task that the jobs share, else of their ids.
    """
    number = sum(len(kind.ids) for kind in mine)
    names = ("state", "queue", "task")
    values = {name: {getattr(kind.evidence.job, name) for kind in mine} for name in names}
    shared = [name for name in names if name == "state" or len(values[name]) == 1]
    for size in range(1, len(shared) + 1):
        for chosen in combinations(shared, size):
            found = sum(
                len(kind.ids)
                for kind in kinds
                if all(getattr(kind.evidence.job, name) in values[name] for name in chosen)
            )
            if found == number and "state" in chosen:
                return _narrow(wanted, {name: sorted(values[name]) for name in chosen})
    ids = sorted(job_id for kind in mine for job_id in kind.ids)
    if len(ids) > _MOST_IDS:
        return None
    return JobFilter(id=ids[0] if len(ids) == 1 else Ids(ids))


def _narrow(wanted: JobFilter, values: Mapping[str, Sequence[str]]) -> JobFilter:
    narrow = wanted.but(sort=None)
    for name, some in values.items():
        if len(some) == 1:
            narrow = narrow.but(**{name: some[0]})
        else:
            clause = tuple(Condition(name, value) for value in some)
            narrow = narrow.but(further=(*narrow.further, clause))
    return narrow


def say_times(group: WaitingGroup) -> str:
    """Who decided it and when it ends, as a part of a sentence: `, by anna, until …`."""
    parts = [f"by {group.by}" if group.by else "", f"“{group.quote}”" if group.quote else ""]
    if group.until is not None:
        same = "" if group.is_until_for_all else "the first "
        parts.append(f"{same}until {moment(group.until)}")
        if group.last_until is not None and not group.is_until_for_all:
            parts.append(f"the last until {moment(group.last_until)}")
    elif group.since is not None:
        parts.append(f"since {moment(group.since)}")
    return "".join(f", {part}" for part in parts if part)
