"""Verifies the chain: every hash, column, sequence, key and time up to the head. Finds the first broken row.

It cannot find two attacks: a person who has SECRET_KEY can sign anything, and a person who can write the
table and the head can remove rows at the end. Heads from the log, passed as `expected`, reveal the second
attack.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from ..core.round_trips import StartedRead, start_reading
from . import chain, queries
from .queries import Head, Link

BATCH = 1_000
# How long an older key may still sign after the first row of a newer key: a rolling deploy uses both.
OLD_KEY_SPAN = timedelta(hours=1)


@dataclass(frozen=True)
class Break:
    """The first row that was changed after it was written: its sequence, a stable code and a sentence."""

    sequence: int
    code: str
    says: str


@dataclass
class ChainCheck:
    """The result: rows `first` to `last` were verified. `hash` is that of `last`. `broken` is None if intact.

    `unknown` are the sequences of the first and last row that none of the given keys has signed, and
    `unknown_rows` is their number: their hashes cannot be computed, so only their place in the chain is
    checked. `outside` counts the rows outside 1 to the head, up to 2,000.
    """

    first: int
    last: int
    hash: bytes = b""
    broken: Break | None = None
    unknown_rows: int = 0
    unknown: tuple[int, int] | None = None
    outside: int = 0

    @property
    def rows(self) -> int:
        """How many rows were verified."""
        return self.last - self.first + 1

    @property
    def state(self) -> str:
        """`intact`, `broken`, or `unverifiable` when rows are signed with a key that is not given."""
        if self.broken:
            return "broken"
        return "unverifiable" if self.unknown_rows else "intact"


def verify(
    session: Session,
    secrets: Sequence[bytes],
    *,
    first: int = 1,
    last: int | None = None,
    expected: Mapping[int, bytes] | None = None,
    after_batch: Callable[[int], object] | None = None,
) -> ChainCheck:
    """Verify every row from `first` to the head, in batches. Stops at the first broken row.

    With `last` only rows `first` to `last` are verified, but not the head and the rows outside the chain.
    `expected` maps sequences to hashes that were noted elsewhere, as in the log: those rows must still have
    these hashes. `after_batch` is called with the last verified sequence. The head is read at the start: rows
    that are appended meanwhile are not verified.
    """
    head = queries.find_head(session)
    return _verify(session, secrets, head, first, last, expected or {}, after_batch)


def verify_newest(
    session: Session, secrets: Sequence[bytes], number: int
) -> tuple[Head | None, ChainCheck]:
    """The head, and what `verify` finds in so many rows before it."""
    head = queries.find_head(session)
    first = max(1, (head.sequence if head else 0) - number + 1)
    return head, _verify(session, secrets, head, first)


def _verify(
    session: Session,
    secrets: Sequence[bytes],
    head: Head | None,
    first: int,
    last: int | None = None,
    expected: Mapping[int, bytes] = {},
    after_batch: Callable[[int], object] | None = None,
) -> ChainCheck:
    if head is None:
        return ChainCheck(first, first - 1, broken=find_head_break(head))
    check = ChainCheck(first, first - 1, outside=head.outside)
    walk = _Walk(chain.keys_by_name(secrets), expected, check)
    end = head.sequence if last is None else last
    before = start_reading(session, queries.list_links, first - 2, 1) if first > 1 else None
    beyond = start_reading(session, queries.list_links, head.sequence, 1) if head.behind else None
    batch = start_reading(
        session, queries.list_links, first - 1, max(0, min(BATCH, end - first + 1))
    )
    for link in before.value if before else ():
        walk.begin_after(link)
    while check.last < end and check.broken is None:
        links = (
            batch.value
            if check.last < first
            else queries.list_links(session, check.last, min(BATCH, end - check.last))
        )
        if not links:
            check.broken = _missing(check.last + 1, f"the head says that there are {head.sequence}")
        walk.follow(links)
        if after_batch is not None:
            after_batch(check.last)
    if check.broken is None and last is None:
        check.broken = (
            _find_outside_break(walk, head, beyond)
            or _compare_head(head, check)
            or _compare_expected(session, check, expected)
        )
    return check


def find_head_break(head: Head | None) -> Break | None:
    """Find what the head alone shows: that it is gone, or that rows are outside the chain.

    Cheap enough for any page.
    """
    if head is None:
        says = "opsjobs.audit_head has lost its row, which names the last decision"
        return Break(0, "no_head", says)
    if not head.outside:
        return None
    are = (
        "1 row of the audit is" if head.outside == 1 else f"{head.outside:,} rows of the audit are"
    )
    says = f"{are} outside the chain, which has rows 1 to {head.sequence:,}: the first is row {head.lowest:,}"
    return Break(head.behind or head.lowest or 0, "behind_head" if head.behind else "outside", says)


def find_chain_fault(session: Session) -> str | None:
    """A sentence for pages about what is wrong with the chain as far as its head shows, or None."""
    found = find_head_break(queries.find_head(session))
    return None if found is None else f"{found.says[:1].upper()}{found.says[1:]}."


@dataclass
class _Walk:
    """Checks row after row, and keeps the hash and the time of the previous row.

    `keys` are ordered, newest first.
    """

    keys: Mapping[str, bytes]
    expected: Mapping[int, bytes]
    check: ChainCheck
    previous: bytes = b""
    previous_at: datetime | None = None
    first_at: dict[str, datetime] = field(default_factory=dict)

    def begin_after(self, link: Link) -> None:
        """Trust this row, and begin with the row after it."""
        self.check.hash = link.hash
        self._remember(link, _time_of(_parse(link.columns)))

    def follow(self, links: Iterable[Link]) -> None:
        """Check the next rows, up to the first broken one."""
        for link in links:
            self._step(link)
            if self.check.broken is not None:
                return

    def _step(self, link: Link) -> None:
        check, parsed = self.check, _parse(link.columns)
        check.broken = self.find_break(link, parsed)
        if check.broken is not None:
            return
        check.last, check.hash = link.sequence, link.hash
        self._remember(link, _time_of(parsed))
        if link.key_id not in self.keys:
            check.unknown_rows += 1
            begin = check.unknown[0] if check.unknown else link.sequence
            check.unknown = (begin, link.sequence)

    def _remember(self, link: Link, at: datetime | None) -> None:
        self.previous, self.previous_at = link.hash, at
        if at is not None:
            self.first_at.setdefault(link.key_id, at)

    def find_break(self, link: Link, parsed: Mapping[str, Any]) -> Break | None:
        """Find what is wrong with the next row; None when nothing is.

        `parsed` are its columns as Python values.
        """
        due = self.check.last + 1
        if link.sequence != due:
            return _missing(due, f"row {link.sequence} comes next")
        if link.previous_hash != self.previous:
            says = f"row {due} does not continue from the hash of row {due - 1}"
            return Break(due, "previous_hash", says)
        key = self.keys.get(link.key_id)
        if key is not None and chain.hash_of(key, link.previous_hash, link.canonical) != link.hash:
            says = f"the hash of row {due} does not match its text: one of them was changed"
            return Break(due, "hash", says)
        if name := _differing(parsed, link.canonical):
            says = f"the column {name} of row {due} differs from the row's signed text"
            return Break(due, "columns", says)
        if self.expected.get(due, link.hash) != link.hash:
            return _unexpected(due)
        return self._find_anachronism(link, _time_of(parsed))

    def _find_anachronism(self, link: Link, at: datetime | None) -> Break | None:
        """Find a time that goes back, or an old key that signs long after a newer key replaced it."""
        if at is None:
            says = f"the time of row {link.sequence} cannot be compared"
            return Break(link.sequence, "time", says)
        if self.previous_at is not None and at < self.previous_at - chain.TIME_SLACK:
            when = f"{at:%Y-%m-%d %H:%M:%S} UTC"
            says = f"row {link.sequence} is of {when}, more than a minute before the previous row"
            return Break(link.sequence, "time", says)
        names = list(self.keys)
        newer = names[: names.index(link.key_id)] if link.key_id in self.keys else []
        since = min((self.first_at[name] for name in newer if name in self.first_at), default=at)
        if at > since + OLD_KEY_SPAN:
            says = (
                f"row {link.sequence} is signed with an old SECRET_KEY, more than an hour after a newer one "
                f"came into use at {since:%Y-%m-%d %H:%M:%S} UTC"
            )
            return Break(link.sequence, "old_key", says)
        return None


def _differing(columns: Mapping[str, Any], canonical: str) -> str | None:
    """The first column that differs from the canonical text; None when all agree."""
    try:
        signed = _parse(canonical)
    except (ValueError, RecursionError):
        return "canonical"
    if not isinstance(signed, dict) or signed.keys() != columns.keys():
        return "canonical"
    return next((name for name in sorted(columns) if columns[name] != signed[name]), None)


def _time_of(parsed: Mapping[str, Any]) -> datetime | None:
    """The time of a row; None for a time that Python cannot represent, such as infinity."""
    try:
        return datetime.fromisoformat(parsed["at"])
    except ValueError:
        return None


def _parse(text: str) -> Any:
    # Parse numbers as decimals: `jsonb` writes 1e23 as 1 with 23 zeros, and no float has exactly that value.
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _missing(sequence: int, why: str) -> Break:
    return Break(sequence, "missing", f"row {sequence} is missing: {why}")


def _find_outside_break(
    walk: _Walk, head: Head, beyond: StartedRead[list[Link]] | None
) -> Break | None:
    """Find rows outside the chain.

    For a row right after the head, which is `beyond`, also tell whether the head was set back.
    """
    found = find_head_break(head)
    if found is None or beyond is None or head.behind != walk.check.last + 1:
        return found
    (link,) = beyond.value
    if link.key_id in walk.keys and walk.find_break(link, _parse(link.columns)) is None:
        why = (
            f"row {head.behind} is signed and follows row {head.sequence}, so the head was set back"
        )
    else:
        why = f"row {head.behind} is not signed as the row after {head.sequence}, so somebody inserted it"
    return replace(found, says=f"{found.says}; {why}")


def _compare_head(head: Head, check: ChainCheck) -> Break | None:
    if head.sequence == check.last and head.hash != check.hash:
        says = f"the head's hash is not that of row {head.sequence}, the last row"
        return Break(head.sequence, "head", says)
    return None


def _compare_expected(
    session: Session, check: ChainCheck, expected: Mapping[int, bytes]
) -> Break | None:
    """Find a noted head that is missing or changed, among the rows that were not verified one by one."""
    for sequence in sorted(expected):
        if check.first <= sequence <= check.last:
            continue
        link = next(iter(queries.list_links(session, sequence - 1, 1)), None)
        if link is None or link.sequence != sequence:
            return _missing(sequence, "it was once the head")
        if link.hash != expected[sequence]:
            return _unexpected(sequence)
    return None


def _unexpected(sequence: int) -> Break:
    says = f"the hash of row {sequence} is not the one that was noted"
    return Break(sequence, "expected", says)
