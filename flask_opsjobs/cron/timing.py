"""Decides each due slot by time alone: run, catch up, or missed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

# A slot is late when its job is enqueued more than this after it. A late slot that catch-up does not run is
# missed.
LATE = timedelta(seconds=60)


@dataclass(frozen=True)
class SlotGroup:
    """Neighbouring slots of one kind. Each `due` or `late` slot runs; `missed` and `paused` slots do not."""

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
    """Group the slots, in order, by what happens to them. `slots` are all slots up to `now` without a result.

    Slots from `paused_at` on are paused. Of the earlier slots that are older than a minute, `catch_up` runs
    the last one (`latest`), the last `limit` (`all`), or none. `latest` runs none either when a regular slot
    is due now: no extra job is needed.
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
