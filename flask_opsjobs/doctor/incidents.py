"""Makes checks that ask what the detector of a class of incidents asks, as severe as it and in its words."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from ..core.db import Connection
from ..core.reading import Reading
from ..core.words import agree
from ..lifeline.detectors import DETECTORS
from ..lifeline.finding import Facts, Finding
from ..lifeline.incidents import words_of
from ..lifeline.lifecycle import SHOWN_AS
from .check import CheckAnswer, CheckContext, ok


def state_of(severity: str) -> str:
    """What a check answers to what is as severe as an incident."""
    return SHOWN_AS[severity][1]


def state_of_class(class_: str) -> str:
    """What a check answers to what this class of incidents tells of."""
    return state_of(DETECTORS[class_].severity)


def look_for(class_: str, fine: str, run: str) -> Callable[[CheckContext], CheckAnswer]:
    """A look that answers with what the detector finds now, or with `fine`.

    The answer is about the first finding, and says how many more there are. `run` is what to run; it may
    name facts of the finding, such as `{queue}`.
    """
    detect = DETECTORS[class_].detect
    assert detect is not None, "another loop reports this class"

    def look(context: CheckContext) -> CheckAnswer:
        with context.reading() as read:
            facts = Facts(driver_connection(read), read.now, context.host.settings)
            found = detect(facts).findings
        return answer_with(class_, found, run) if found else ok(fine)

    return look


def answer_with(class_: str, found: Sequence[Finding], run: str) -> CheckAnswer:
    """The answer about the first of these findings, in the words of its incident."""
    words = words_of(class_, found[0].facts)
    facts = {name: shlex.quote(str(value)) for name, value in found[0].facts.items()}
    left = len(found) - 1
    more = f" There {agree(left, 'is', 'are')} {left} more." if left else ""
    return CheckAnswer(
        state_of_class(class_), f"{words.title}.", f"{words.why}{more}", run.format_map(facts)
    )


def driver_connection(read: Reading) -> Connection:
    """The driver's connection of a reading, as detectors and the checks of domains take it."""
    found: Any = read.session.connection().connection.driver_connection
    connection: Connection = found
    return connection
