"""Whether an attempt ran with a fix: by the order of deploy markers, and by the start of its worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from flask_opsjobs.failures.fix import Fix, Ran, has_fix

DECIDED = datetime(2026, 11, 26, 12, tzinfo=UTC)
BEFORE, AFTER = DECIDED - timedelta(hours=1), DECIDED + timedelta(hours=1)
IN_4, AFTER_4, FIRST, NO_MARKER = (
    Fix(DECIDED, resolved_in=4),
    Fix(DECIDED, resolved_after=4),
    Fix(DECIDED, resolved_after=0),
    Fix(DECIDED),
)


@pytest.mark.parametrize(
    ("fix", "ran", "expected"),
    [
        # Old code after the fix, however late it runs.
        (IN_4, Ran(AFTER, 3, AFTER), False),
        (AFTER_4, Ran(AFTER, 4, AFTER), False),
        (AFTER_4, Ran(AFTER, 3, AFTER), False),
        # New code.
        (IN_4, Ran(AFTER, 5, AFTER), True),
        (AFTER_4, Ran(AFTER, 5, AFTER), True),
        # A marker may be later than the times say, when a clock was set back.
        (AFTER_4, Ran(BEFORE, 5, BEFORE), True),
        # The deploy of the fix itself: what failed there before is what the person looked at.
        (IN_4, Ran(BEFORE, 4, BEFORE), False),
        (IN_4, Ran(DECIDED, 4, BEFORE), False),
        (IN_4, Ran(AFTER, 4, BEFORE), True),
        # A worker from before all markers.
        (IN_4, Ran(AFTER, None, AFTER), False),
        (AFTER_4, Ran(AFTER, None, AFTER), False),
        (FIRST, Ran(AFTER, None, AFTER), False),
        (FIRST, Ran(AFTER, 1, AFTER), True),
        # Without markers the start of the worker counts, not that of the attempt.
        (NO_MARKER, Ran(AFTER, None, BEFORE), False),
        (NO_MARKER, Ran(AFTER, None, AFTER), True),
        (NO_MARKER, Ran(AFTER, None, None), False),
    ],
)
def test_an_attempt_has_the_fix(fix: Fix, ran: Ran, expected: bool) -> None:
    assert has_fix(ran, fix) is expected
