"""Shows in the docs what the code says: of jobs, reasons, settings, events, cron and limits.

So no page repeats a list that stands in the code, and none can fall behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import diagram
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from flask_opsjobs import settings, signals
from flask_opsjobs.cron import lifecycle as cron
from flask_opsjobs.doctor.registry import CHECKS
from flask_opsjobs.escalations import lifecycle as escalations
from flask_opsjobs.escalations.facts import MEANINGS as ESCALATION_FACTS
from flask_opsjobs.explain.reason_kinds import REASON_KINDS
from flask_opsjobs.jobs import lifecycle
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.limits.words import GLOSSARY


class _Table(SphinxDirective):
    """Draws a table whose cells are Markdown."""

    head: ClassVar[tuple[str, ...]]

    def rows(self) -> Iterable[tuple[str, ...]]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        lines = [self.head, tuple("---" for _ in self.head), *self.rows()]
        text = ["| " + " | ".join(cells) + " |" for cells in lines]
        return self.parse_text_to_nodes("\n".join(text))


class States(_Table):
    """Lists the states of a job with their meanings."""

    head = ("state", "meaning", "leaves by")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for state in lifecycle.STATES:
            moves = ", ".join(
                f"`{arrow.name}`" for arrow in lifecycle.ARROWS if state in arrow.sources
            )
            yield f"`{state}`", lifecycle.MEANINGS[state], moves


class Arrows(_Table):
    """Lists every legal move of a job."""

    head = ("arrow", "from", "to", "made by", "when")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for arrow in lifecycle.ARROWS:
            sources = ", ".join(f"`{state}`" for state in arrow.sources)
            stays = "gone" if arrow.name == "delete" else "as it was"
            targets = ", ".join(f"`{state}`" for state in arrow.targets) or stays
            yield f"`{arrow.name}`", sources, targets, arrow.by, arrow.meaning


class Endings(_Table):
    """Lists why a final job ended, as its row says."""

    head = ("`ended_by`", "meaning")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for word, meaning in lifecycle.ENDED_BY.items():
            yield f"`{word}`", meaning


class IncidentClasses(_Table):
    """Lists the classes of incidents: when each is found, what looks like it, and what repairs it."""

    head = ("class", "severity", "found when", "near miss", "repairs")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for detector in DETECTORS.values():
            repairs = ", ".join(f"`{action}`" for action in detector.repairs) or "–"
            yield (
                f"`{detector.class_}`",
                detector.severity,
                detector.found_when,
                detector.near_miss,
                repairs,
            )


class DoctorChecks(_Table):
    """Lists the checks of the doctor: what must hold, and what each answers when it does not."""

    head = ("check", "answers", "what must hold")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for check in CHECKS.values():
            yield f"`{check.id}`", " or ".join(check.levels), check.asks


class EscalationFacts(_Table):
    """Lists what the escalation policy gets."""

    head = ("key", "meaning")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for name, meaning in ESCALATION_FACTS.items():
            yield f"`{name}`", meaning


class EscalationEvents(_Table):
    """Lists the events of an incident that the escalation policy is told of."""

    head = ("event", "told when")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for event, meaning in escalations.EVENTS.items():
            yield f"`{event}`", meaning


class Reasons(_Table):
    """Lists every reason why a job may not be running, in the order in which they decide."""

    head = ("code", "holds when", "what helps", "action")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for kind in REASON_KINDS:
            action = f"`{kind.action}`" if kind.action else ""
            yield f"`{kind.code}`", kind.holds, kind.helps, action


class LimitWords(SphinxDirective):
    """Lists the words of limits, as entries of the glossary."""

    def run(self) -> list[nodes.Node]:
        entries = "\n\n".join(f"{word}\n  {meaning}" for word, meaning in GLOSSARY.items())
        return self.parse_text_to_nodes(f":::{{glossary}}\n{entries}\n:::")


class Settings(_Table):
    """Lists every setting with its default."""

    head = ("setting", "default", "meaning")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for setting in settings.SETTINGS:
            key = settings.PREFIX + setting.key
            yield f"`{key}`", f"`{setting.default!r}`", setting.meaning


class Events(_Table):
    """Lists every event: when and where it is sent, and with which facts."""

    head = ("event", "sent when", "facts; **labels** are bold")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for event in signals.EVENTS.values():
            facts = "; ".join(
                f"{f'**`{name}`**' if name in event.labels else f'`{name}`'} {meaning}"
                for name, meaning in event.facts.items()
            )
            where = f"{event.meaning}; *{event.when}*, in the process {event.process}"
            yield f"`{event.name}`", where, facts


class Overlaps(_Table):
    """Lists what happens to a slot while a job of its entry has not ended."""

    head = ("`overlap`", "the slot")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for word, meaning in cron.OVERLAPS.items():
            yield f"`{word}`", meaning


class CatchUps(_Table):
    """Lists which missed slots run after a time without the cron loop."""

    head = ("`catch_up`", "runs")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for word, meaning in cron.CATCH_UPS.items():
            yield f"`{word}`", meaning


class Results(_Table):
    """Lists the results that a slot may have."""

    head = ("result", "meaning", "has a job")

    def rows(self) -> Iterable[tuple[str, ...]]:
        for word, result in cron.RESULTS.items():
            yield f"`{word}`", result.meaning, "yes" if result.runs else "no"


class Diagram(SphinxDirective):
    """Draws the states and arrows as a picture."""

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", diagram.svg(), format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("job-states", States)
    app.add_directive("job-arrows", Arrows)
    app.add_directive("job-endings", Endings)
    app.add_directive("job-diagram", Diagram)
    app.add_directive("explain-reasons", Reasons)
    app.add_directive("events", Events)
    app.add_directive("cron-overlaps", Overlaps)
    app.add_directive("cron-catch-ups", CatchUps)
    app.add_directive("cron-results", Results)
    app.add_directive("incident-classes", IncidentClasses)
    app.add_directive("doctor-checks", DoctorChecks)
    app.add_directive("escalation-facts", EscalationFacts)
    app.add_directive("escalation-events", EscalationEvents)
    app.add_directive("limit-words", LimitWords)
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
