"""Runs the verify_audit loop: each hour it verifies the newest rows of the audit and a part of the others."""

from __future__ import annotations

from functools import partial

from sqlalchemy.orm import Session

from ..audit.verify import Break, verify, verify_newest
from ..lifeline import incidents
from ..lifeline.detectors import audit_broken
from ..lifeline.finding import DetectorPass
from .loop import IDLE, Loop, Pass, every

# A thousand rows take about a tenth of a second.
_NEWEST = 500
_PART = 2_000
# Until all rows were verified once, and after a break until it is cleared, a pass is made this soon.
_AGAIN_SECONDS = 60.0
_PASSES_AFTER_BREAK = 3


def run(context: Pass) -> str:
    """Verify a part. Only after a round over all rows without a break a look is complete.

    A part with a break is verified again. Rows that were signed with an unknown key are no break.
    """
    memory = context.memory
    broken = _find_break(context)
    if broken is not None:
        memory |= {"is_whole": False, "soon": _PASSES_AFTER_BREAK}
    memory["soon"] = max(0, memory.get("soon", 0) - 1)
    if memory["soon"] or not memory.get("is_whole"):
        context.sooner(_AGAIN_SECONDS)
    found = [audit_broken.find_break(broken.sequence, broken.code, broken.says)] if broken else []
    is_complete = memory.get("is_whole", False) and not context.was_asleep
    seen = DetectorPass(found, is_complete)
    applied = incidents.apply_pass(context.connection, "audit_broken", seen, context.now)
    context.after_commit(partial(incidents.announce, context.host, applied))
    return f"row {broken.sequence} of the audit is broken" if broken else IDLE


def _find_break(context: Pass) -> Break | None:
    """Verify the newest rows and the head, and the part that is next; remember which part that is."""
    memory, secrets = context.memory, context.host.secrets
    first = memory.get("first", 1)
    # Each statement is a transaction: a check holds back no vacuum.
    engine = context.host.engine.execution_options(isolation_level="AUTOCOMMIT")
    with Session(engine) as session:
        _, check = verify_newest(session, secrets, _NEWEST)
        newest, found = check.first, check.broken
        until = min(first + _PART, newest)
        if found is None and first < until:
            found = verify(session, secrets, first=first, last=until - 1).broken
    if found is None:
        memory["first"] = until if until < newest else 1
        memory["is_whole"] = memory.get("is_whole", False) or until >= newest
    return found


LOOP = Loop("verify_audit", every(3600), run, is_alone=True)
