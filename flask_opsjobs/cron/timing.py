"""Decides each due slot by time alone: run, catch up, or missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

# A job that is recorded later than this after its slot is late; what catch-up leaves out is missed.
LATE = timedelta(seconds=60)


@dataclass(frozen=True)
class SlotGroup:
    """Neighbouring slots of one kind: `due` and `late` ones are to run, each by itself; `missed`, `paused` not."""

    kind: str
    slots: Sequence[datetime]


def decide_by_time(
    slots: Sequence[datetime],
    now: datetime,
    *,
    paused_at: datetime | None,
    catch_up: str,
    limit: int | None,
) -> list[SlotGroup]:
    """The slots, in order, by what they are to become. `slots` are all up to `now` that have no result yet.

    A slot from `paused_at` on is paused. Of those before that are older than a minute `catch_up` runs the last one
    (`latest`), or the last `limit` (`all`); `latest` runs none when a slot is due right now, which stands for all.
    """
    kinds = [_kind(slot, now, paused_at) for slot in slots]
    old = [at for at, kind in enumerate(kinds) if kind == "old"]
    for at in old:
        kinds[at] = "missed"
    if catch_up == "all":
        made_up = old[-(limit or 0) :] if limit else []
    else:
        made_up = old[-1:] if catch_up == "latest" and "due" not in kinds else []
    for at in made_up:
        kinds[at] = "late"
    return list(_grouped(slots, kinds))


def _kind(slot: datetime, now: datetime, paused_at: datetime | None) -> str:
    if paused_at is not None and slot >= paused_at:
        return "paused"
    return "old" if now - slot > LATE else "due"


def _grouped(slots: Sequence[datetime], kinds: Sequence[str]) -> Iterator[SlotGroup]:
    for kind, pairs in groupby(zip(slots, kinds, strict=True), key=lambda pair: pair[1]):
        yield SlotGroup(kind, [slot for slot, _ in pairs])
