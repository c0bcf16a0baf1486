"""Remembers what earlier looks at one Redis saw, and finds what is new or has moved since."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from .look import Look, Slice, Structure, job_id_of

# Failed jobs are read first, because somebody may have to act on them, and jobs that are in no structure any
# more last.
_FIRST, _NEXT, _LAST = range(3)


@dataclass
class _Turns:
    """A structure that is read in turns: what the last whole round saw, and what this one has seen so far."""

    began_at: datetime
    start: int = 0
    # When the last whole round began.
    read_since: datetime | None = None
    before: set[bytes] = field(default_factory=set)
    seen: set[bytes] = field(default_factory=set)


@dataclass
class Memory:
    """What one process knows of one Redis. It begins empty, so the first looks read every job again.

    `looked_at`: when the last look began; None before the first.
    """

    looked_at: datetime | None = None
    cursor: int = 0
    cron: dict[bytes, str] = field(default_factory=dict)
    has_swept: bool = False
    tops: dict[Structure, float] = field(default_factory=dict)
    _orders: dict[Structure, list[bytes]] = field(default_factory=dict)
    _turns: dict[Structure, _Turns] = field(default_factory=dict)
    _places: dict[bytes, tuple[tuple[Structure, bytes], ...]] = field(default_factory=dict)
    _payloads: dict[bytes, int] = field(default_factory=dict)
    _waiting: tuple[dict[bytes, None], ...] = field(default_factory=lambda: ({}, {}, {}))

    def starts(self) -> dict[Structure, int]:
        """From where the next look reads the structures that are read in turns."""
        return {structure: turns.start for structure, turns in self._turns.items()}

    def places_of(self, rq_id: bytes) -> tuple[tuple[Structure, bytes], ...]:
        """The structures that hold a job, each with its entry there; where it came last, at the end."""
        return self._places.get(rq_id, ())

    @property
    def in_turns(self) -> list[Structure]:
        """The structures that are read in turns."""
        return list(self._turns)

    @property
    def read_since(self) -> datetime | None:
        """Every structure was read whole at this time or later; None while a first round of turns goes on."""
        times = [self.looked_at, *(turns.read_since for turns in self._turns.values())]
        known = [time for time in times if time is not None]
        return min(known) if len(known) == len(times) else None

    @property
    def waiting(self) -> int:
        """How many jobs are new or have moved, and were not read yet."""
        return sum(map(len, self._waiting))

    def take(self, most: int) -> list[bytes]:
        """Take at most so many of the waiting jobs, failed ones first."""
        taken: list[bytes] = []
        for ids in self._waiting:
            some = list(ids)[: most - len(taken)]
            for rq_id in some:
                del ids[rq_id]
            taken += some
        return taken

    def note(self, rq_ids: Iterable[bytes]) -> None:
        """Let these jobs be read."""
        for rq_id in rq_ids:
            self._note(rq_id)

    def note_again(self, rq_ids: Iterable[bytes]) -> None:
        """Let these jobs be read whole, since what was read of them was not written."""
        for rq_id in rq_ids:
            self._payloads.pop(rq_id, None)
            self._note(rq_id)

    def knows_payload(self, rq_id: bytes, created_at: bytes | None, data: bytes | int) -> bool:
        """Whether the job had this payload when it was read before; from now on it has."""
        now = hash((created_at, data))
        is_known = self._payloads.get(rq_id) == now
        if rq_id in self._places:
            self._payloads[rq_id] = now
        return is_known

    def note_unplaced(self, rq_ids: Iterable[bytes]) -> None:
        """Let those of these jobs be read that are in no structure."""
        self.note(rq_id for rq_id in rq_ids if rq_id not in self._places)

    def keep(self, look: Look, now: datetime) -> None:
        """Compare a look with what is known, note what is new or has moved, and remember the look."""
        for structure, found in look.slices.items():
            self._keep(structure, found, now)
        for structure in {*self._orders, *self._turns} - {*look.slices}:  # its queue was deleted
            self._keep(structure, Slice([], 0, True), now)
            self._orders.pop(structure)
        self.cron |= {rq_id: name for rq_id, name in look.cron.items() if rq_id in self._places}
        # A job that failed again since the last look is where it was before.
        self.note(rq_id for arrivals in look.arrivals.values() for rq_id in arrivals)
        self.tops = dict(look.tops)
        self.note_unplaced(look.walked)
        self.cursor, self.looked_at = look.cursor, now

    def _keep(self, structure: Structure, found: Slice, now: datetime) -> None:
        turns = self._turns.get(structure)
        if turns is None and found.is_rest:
            self._keep_whole(structure, found.ids)
            return
        if turns is None:
            turns = _Turns(now, before=set(self._orders.pop(structure, ())))
            self._turns[structure] = turns
        if not found.start:
            turns.began_at = now
        turns.seen.update(found.ids)
        self._add(structure, [entry for entry in found.ids if entry not in turns.before])
        turns.start = 0 if found.is_rest else found.start + len(found.ids)
        if not found.is_rest:
            return
        if found.start:
            self._remove(structure, turns.before - turns.seen)
            turns.before, turns.seen, turns.read_since = turns.seen, set(), turns.began_at
        else:  # it became short, or its queue was deleted: the next look reads it whole
            self._remove(structure, (turns.before | turns.seen).difference(found.ids))
            self._orders[structure] = found.ids
            del self._turns[structure]

    def _keep_whole(self, structure: Structure, entries: list[bytes]) -> None:
        old = self._orders.get(structure, [])
        if entries == old:
            return
        old_set, new_set = set(old), set(entries)
        self._add(structure, [entry for entry in entries if entry not in old_set])
        self._remove(structure, old_set - new_set)
        for entry in _find_moved(
            [entry for entry in old if entry in new_set],
            [entry for entry in entries if entry in old_set],
        ):
            self._note(job_id_of(entry))
        self._orders[structure] = entries

    def _add(self, structure: Structure, entries: Iterable[bytes]) -> None:
        for entry in entries:
            rq_id = job_id_of(entry)
            self._places[rq_id] = (*self._places.get(rq_id, ()), (structure, entry))
            self._note(rq_id)

    def _remove(self, structure: Structure, entries: Iterable[bytes]) -> None:
        for entry in entries:
            rq_id = job_id_of(entry)
            left = tuple(p for p in self._places.get(rq_id, ()) if p != (structure, entry))
            if left:
                self._places[rq_id] = left
            else:
                for known in (self._places, self.cron, self._payloads):
                    known.pop(rq_id, None)
            self._note(rq_id)

    def _note(self, rq_id: bytes) -> None:
        places = self._places.get(rq_id, ())
        rank = _LAST if not places else _NEXT
        if any(structure.kind == "failed" for structure, _ in places):
            rank = _FIRST
        for ids in self._waiting:
            ids.pop(rq_id, None)
        self._waiting[rank][rq_id] = None


def _find_moved(old: list[bytes], new: list[bytes]) -> set[bytes]:
    """The entries that left a structure and came back to its end between two looks, such as a second failure.

    Both have the same entries; more of them when a list has an entry twice.
    """
    moved: set[bytes] = set()
    if old == new or len(old) != len(new):
        return moved
    at = 0
    for entry in new:
        if entry in moved:
            continue
        while at < len(old) and old[at] != entry:
            moved.add(old[at])
            at += 1
        at += 1
    return moved
