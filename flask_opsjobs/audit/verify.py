"""Whether the chain is whole: every hash, every column, every sequence, up to the head. Finds the first broken row.

What it cannot find: who holds SECRET_KEY can sign anything, and who can write the table and the head can take rows off
the end. Against the second stand the heads in the log: `expected`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy.orm import Session

from . import chain, queries
from .rows import Head, Link

BATCH = 500


@dataclass(frozen=True)
class Break:
    """The first row that is not as it was written, a stable word for how, and a sentence."""

    sequence: int
    code: str
    says: str


@dataclass
class Verdict:
    """What was verified: rows `first` to `last`, whose hash is `hash`. `broken` is None when nothing is wrong.

    `unknown` are the sequences of the first and the last row that no key at hand has signed, `unknown_rows` how many
    there are: their hashes could not be computed, so that only their place in the chain is known.
    """

    first: int
    last: int
    hash: bytes = b""
    broken: Break | None = None
    unknown_rows: int = 0
    unknown: tuple[int, int] | None = None

    @property
    def rows(self) -> int:
        """How many rows were looked at."""
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
    expected: Mapping[int, bytes] | None = None,
    after_batch: Callable[[int], object] = lambda sequence: None,
) -> Verdict:
    """Look at every row from `first` to the head, in batches; memory does not grow. Stops at the first broken row.

    `expected` are heads that were noted elsewhere, by sequence: those rows must still have these hashes. `after_batch`
    is told how far it is. The head is read at the start; what is appended meanwhile is left for the next time.
    """
    head = queries.find_head(session)
    if head is None:
        return Verdict(first, first - 1, broken=_no_head())
    expected = expected or {}
    walk = _Walk(chain.keys_by_name(secrets), expected, Verdict(first, first - 1))
    if first > 1:
        for link in queries.list_links(session, first - 2, 1):
            walk.previous = walk.verdict.hash = link.hash
    verdict = walk.verdict
    while verdict.last < head.sequence and verdict.broken is None:
        links = queries.list_links(session, verdict.last, min(BATCH, head.sequence - verdict.last))
        if not links:
            verdict.broken = _missing(
                verdict.last + 1, f"the head says that there are {head.sequence}"
            )
        for link in links:
            if verdict.broken is None:
                walk.step(link)
        after_batch(verdict.last)
    if verdict.broken is None:
        verdict.broken = _compare_head(head, verdict) or _compare_expected(
            session, verdict, expected
        )
    return verdict


@dataclass
class _Walk:
    """Goes from row to row, with the hash of the one before in hand."""

    keys: Mapping[str, bytes]
    expected: Mapping[int, bytes]
    verdict: Verdict
    previous: bytes = b""

    def step(self, link: Link) -> None:
        """Judge the next row."""
        verdict = self.verdict
        verdict.broken = self._break(link)
        if verdict.broken is not None:
            return
        verdict.last, verdict.hash, self.previous = link.sequence, link.hash, link.hash
        if link.key_id not in self.keys:
            verdict.unknown_rows += 1
            begin = verdict.unknown[0] if verdict.unknown else link.sequence
            verdict.unknown = (begin, link.sequence)

    def _break(self, link: Link) -> Break | None:
        due = self.verdict.last + 1
        if link.sequence != due:
            return _missing(due, f"row {link.sequence} comes next")
        if link.previous_hash != self.previous:
            says = f"row {due} does not follow row {due - 1} as that is now"
            return Break(due, "previous_hash", says)
        key = self.keys.get(link.key_id)
        if key is not None and chain.hash_of(key, link.previous_hash, link.canonical) != link.hash:
            says = f"the hash of row {due} is not that of its text: one of them was changed"
            return Break(due, "hash", says)
        if name := _differing(link):
            says = f"the column {name} of row {due} does not say what its signed text says"
            return Break(due, "columns", says)
        if self.expected.get(due, link.hash) != link.hash:
            return _unexpected(due)
        return None


def _differing(link: Link) -> str | None:
    """The first column that says something else than the canonical text; None when they agree."""
    columns = _parse(link.columns)
    try:
        signed = _parse(link.canonical)
    except (ValueError, RecursionError):
        return "canonical"
    if not isinstance(signed, dict) or signed.keys() != columns.keys():
        return "canonical"
    return next((name for name in sorted(columns) if columns[name] != signed[name]), None)


def _parse(text: str) -> Any:
    # As decimals: `jsonb` writes 1e23 as 1 with 23 zeros, which no float is.
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _missing(sequence: int, why: str) -> Break:
    return Break(sequence, "missing", f"row {sequence} is missing: {why}")


def _no_head() -> Break:
    return Break(0, "no_head", "opsjobs.audit_head has lost its row, which names the last decision")


def _compare_head(head: Head, verdict: Verdict) -> Break | None:
    if head.last_sequence > head.sequence:
        says = f"row {head.sequence + 1} stands behind the head, which says that {head.sequence} is the last"
        return Break(head.sequence + 1, "behind_head", says)
    if head.sequence == verdict.last and head.hash != verdict.hash:
        says = f"the head has another hash than row {head.sequence}, which is the last"
        return Break(head.sequence, "head", says)
    return None


def _compare_expected(
    session: Session, verdict: Verdict, expected: Mapping[int, bytes]
) -> Break | None:
    """That the noted heads which were not walked over are there: before the first row, and at the end."""
    for sequence in sorted(expected):
        if verdict.first <= sequence <= verdict.last:
            continue
        link = next(iter(queries.list_links(session, sequence - 1, 1)), None)
        if link is None or link.sequence != sequence:
            return _missing(sequence, "it was the head once")
        if link.hash != expected[sequence]:
            return _unexpected(sequence)
    return None


def _unexpected(sequence: int) -> Break:
    says = f"row {sequence} has another hash than the one that was noted"
    return Break(sequence, "expected", says)
