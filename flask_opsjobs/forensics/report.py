"""Orders a bundle as the skeleton of a post-mortem: summary, impact, timeline, what is not known, decisions.

`markdown.py` and `html.py` write the same report. Pure: the same bundle makes the same report.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.history import Event
from ..core.words import counted, moment, took
from .bundle import Bundle, Cell, Column, EvidenceTable, Lack, LeftOut, Path

# The lines of a timeline that are about the time, and not about the subject.
ABOUT_THE_TIME = ("blind", "deploy", "operation")


@dataclass(frozen=True)
class Text:
    """A paragraph. A prompt asks the reader to write something, and a quote is a text of the subject."""

    says: str
    kind: str = "plain"


@dataclass(frozen=True)
class Point:
    """One point of a list: its `lead` is set off, `rest` follows it."""

    lead: str
    rest: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Points:
    """A list of points; a numbered one is in order."""

    items: Sequence[Point]
    is_numbered: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table; `mark` is `blind`, `deploy` or `operation`, or empty."""

    cells: Sequence[str]
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table: `title` says what it shows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    numeric: Sequence[int] = ()


Block = Text | Points | Table


@dataclass(frozen=True)
class Section:
    """A heading, and what is below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class PostMortem:
    """What an export says, in order."""

    title: str
    says: str
    sections: Sequence[Section]


def make_post_mortem(bundle: Bundle, reader: str, environment: str) -> PostMortem:
    """The report of a bundle whose texts have passed the display policy."""
    return PostMortem(
        f"{bundle.title}, forensics",
        f"Read by {reader} at {moment(bundle.read_at)}, environment {environment}.",
        [
            Section("Summary", list(_summary(bundle))),
            Section("Impact", list(_impact(bundle))),
            Section("Timeline", list(_timeline(bundle))),
            Section("What is not known", list(_unknown(bundle))),
            Section("Decisions", list(_decisions(bundle))),
            Section("What may be done next", list(_paths(bundle))),
        ],
    )


def seal(text: str, around: tuple[str, str] = ("", "")) -> bytes:
    """The text as a file whose last line names the SHA-256 of all lines above it.

    `head -n -1 FILE | sha256sum` computes it again.
    """
    above = f"{text.rstrip()}\n".encode()
    before, after = around
    return above + f"{before}{hashlib.sha256(above).hexdigest()}{after}\n".encode()


def _summary(bundle: Bundle) -> Iterator[Block]:
    yield Text(bundle.diagnosis)
    if bundle.quote:
        yield Text(bundle.quote, "quote")
    facts = []
    if bundle.state:
        facts.append(("State", bundle.state))
    facts.append(("Completeness", bundle.completeness))
    if bundle.since:
        until = moment(bundle.until) if bundle.until else "now"
        facts.append(("Span", f"{moment(bundle.since)} to {until}"))
    yield Points([Point(f"{name}:", value) for name, value in facts])


def _impact(bundle: Bundle) -> Iterator[Block]:
    for evidence in bundle.evidence:
        yield _table(evidence) if evidence.rows else Text(f"{evidence.title}: none is stored.")
        if evidence.left_out:
            yield Text(describe_left_out(evidence.left_out))
    if bundle.related:
        yield Points(
            [
                Point(f"{each.how}:", " ".join(filter(None, (each.name, each.says))))
                for each in bundle.related
            ]
        )
    yield Text("Who was affected, since when, and how many.", "prompt")


def _table(evidence: EvidenceTable) -> Table:
    numeric = [
        place
        for place, column in enumerate(evidence.columns)
        if column.kind not in ("text", "payload")
    ]
    rows = [
        Row([write_cell(*pair) for pair in zip(evidence.columns, row.cells, strict=True)])
        for row in evidence.rows
    ]
    return Table(evidence.title, [column.name for column in evidence.columns], rows, numeric)


def _timeline(bundle: Bundle) -> Iterator[Block]:
    events = list(reversed(bundle.timeline.events))
    for left_out in bundle.timeline.left_out:
        yield Text(describe_left_out(left_out))
    if not events:
        yield Text("Nothing is stored.")
        return
    rows = [
        Row(
            [say_when(event), say_event(event), event.source],
            event.is_ if event.is_ in ABOUT_THE_TIME else "",
        )
        for event in events
    ]
    yield Table("Events, the oldest first", ("Time (UTC)", "What happened", "Reported by"), rows)


def _unknown(bundle: Bundle) -> Iterator[Block]:
    if bundle.lacking:
        yield Points([Point(say_lack(lack)) for lack in bundle.lacking])
    elif bundle.completeness == "complete":
        yield Text("Nothing: all that should be recorded of this time is recorded.")
    else:
        yield Text("Nothing of this subject is stored, so it cannot be said what lacks.")
    yield Text("What nobody could find out, and who asks.", "prompt")


def _decisions(bundle: Bundle) -> Iterator[Block]:
    decided = [event for event in reversed(bundle.timeline.events) if event.audit]
    if decided:
        rows = [
            Row([say_when(event), event.text, event.label or "", str(event.audit)])
            for event in decided
        ]
        yield Table(
            "Decisions, the oldest first", ("Time (UTC)", "Decision", "Reason", "Audit"), rows
        )
    else:
        yield Text("The audit has no decision about this subject in this time.")
    yield Text("What was decided afterwards, by whom, and until when.", "prompt")


def _paths(bundle: Bundle) -> Iterator[Block]:
    if bundle.paths:
        items = [Point(path.title, say_path(path), path.url) for path in bundle.paths]
        yield Points(items, is_numbered=True)
    else:
        yield Text(say_no_path(bundle))
    runbook = bundle.runbook
    if runbook is None:
        return
    yield Points([Point("Runbook:", runbook.name, runbook.url)])
    if runbook.prerequisites:
        yield Points([Point(f"{each.state}:", each.says) for each in runbook.prerequisites])
    if runbook.cautions:
        yield Points([Point("Caution:", caution) for caution in runbook.cautions])


# --- sentences, which the page writes in the same way


def say_when(event: Event) -> str:
    """When an event was, as a table shows it: to the second, or between two times when nobody saw it."""
    at = _time(event.at)
    return f"{_time(event.after)} to {at}" if event.after else at


def say_event(event: Event) -> str:
    """An event in words: how long it lasted, what it was, and what a person or the job said about it."""
    if event.is_ == "blind":
        until = moment(event.until) if event.until else "now"
        return f"Nobody watched until {until}. {event.text}"
    until = f" until {moment(event.until)}" if event.until else ""
    label = f": “{event.label}”" if event.label else ""
    payload = f": {event.payload}" if event.payload else ""
    return f"{event.text}{until}{label}{payload}"


def say_lack(lack: Lack) -> str:
    """What is not known, with the time for which it is not known."""
    when = ""
    if lack.since and lack.until:
        when = f", {moment(lack.since)} to {moment(lack.until)}"
    elif lack.since:
        when = f", since {moment(lack.since)}"
    elif lack.until:
        when = f", until {moment(lack.until)}"
    return f"{lack.says.removesuffix('.')}{when}{' (removed)' if lack.is_removed else ''}"


def describe_left_out(left_out: LeftOut) -> str:
    """What a bounded list leaves out."""
    number = "more" if left_out.number is None else counted(left_out.number, "more", "more")
    before = f" before {moment(left_out.before)}" if left_out.before else ""
    return f"Not shown: {number} {left_out.what}{before}."


def say_path(path: Path) -> str:
    """Who owns a path, what is known of it, and why it cannot be done now."""
    owner = path.owner if path.status is None else f"{path.owner}, {path.status}"
    if path.kind == "bridge":
        owner += ", inspection only"
    refusal = f"Not possible now: {path.refusal}." if path.refusal else ""
    return " ".join(filter(None, (f"({owner}).", path.says, refusal)))


def say_no_path(bundle: Bundle) -> str:
    """Why nothing can be done about a subject now."""
    if bundle.completeness == "unknown":
        return "There is nothing to act on. Check how it is written, or look for its id or name in Forensics."
    if bundle.state is None:  # it is removed, or is no thing that has one, such as a person
        return "No action could change anything of it. Its timeline has what is recorded."
    return "Its state allows no action, and nobody else has anything to do about it."


def write_cell(column: Column, cell: Cell) -> str:
    """A cell of evidence in words."""
    if cell is None:
        return "–"
    if isinstance(cell, datetime):
        return _time(cell)
    if column.kind == "seconds" and isinstance(cell, int | float):
        return took(cell)
    if column.kind == "bytes" and isinstance(cell, int | float):
        return write_size(cell)
    if isinstance(cell, int) and column.kind == "number":
        return f"{cell:,}"
    return str(cell)


def write_size(byte_count: float) -> str:
    """A number of bytes in kB, MB or GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if byte_count >= size:
            return f"{byte_count / size:,.2f} {unit}"
    return f"{byte_count / 1e3:,.1f} kB"


def _time(at: datetime) -> str:
    """A time in a column that says its zone."""
    return moment(at).removesuffix(" UTC")
