"""Passes every text of a bundle through the display policy. All readers get only the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from ..core.display import NO_PAYLOAD, Display
from ..core.history import Event
from .bundle import Bundle, Cell, Column, EvidenceTable, History, LeftOut, Path, Runbook, TableRow

# A text that a timeline shows on one line.
_LONGEST = 1_000
_LONGEST_END = 4_000


def show_bundle(bundle: Bundle, display: Display) -> Bundle:
    """The bundle as its reader may see it: texts cleaned, and payload replaced for who may not see it."""
    screen = _Screen(display)
    return replace(
        bundle,
        title=screen.clean(bundle.title),
        diagnosis=screen.clean(bundle.diagnosis),
        quote=screen.payload(bundle.quote),
        lacking=[replace(lack, says=screen.clean(lack.says)) for lack in bundle.lacking],
        timeline=History(
            [screen.event(event) for event in bundle.timeline.events],
            [screen.left_out(row) for row in bundle.timeline.left_out],
        ),
        evidence=[screen.table(table) for table in bundle.evidence],
        related=[
            replace(one, name=screen.clean(one.name), says=screen.clean(one.says))
            for one in bundle.related
        ],
        paths=[screen.path(path) for path in bundle.paths],
        runbook=None if bundle.runbook is None else screen.runbook(bundle.runbook),
    )


@dataclass(frozen=True)
class _Screen:
    display: Display

    @overload
    def clean(self, text: str) -> str: ...
    @overload
    def clean(self, text: None) -> None: ...
    def clean(self, text: str | None) -> str | None:
        return None if text is None else self.display.start(text, _LONGEST)

    def payload(self, text: str | None) -> str | None:
        return self.clean(text) if self.display.may_see or text is None else NO_PAYLOAD

    def event(self, event: Event) -> Event:
        return replace(
            event,
            text=self.clean(event.text),
            source=self.clean(event.source),
            payload=self.payload(event.payload),
            label=self.clean(event.label),
        )

    def left_out(self, row: LeftOut) -> LeftOut:
        return replace(row, what=self.clean(row.what))

    def table(self, table: EvidenceTable) -> EvidenceTable:
        return replace(
            table,
            title=self.clean(table.title),
            rows=[self._row(table.columns, row) for row in table.rows],
            left_out=None if table.left_out is None else self.left_out(table.left_out),
        )

    def _row(self, columns: Sequence[Column], row: TableRow) -> TableRow:
        return replace(row, cells=list(map(self._cell, columns, row.cells)))

    def _cell(self, column: Column, cell: Cell) -> Cell:
        if column.shows_end and isinstance(cell, str) and self.display.may_see:
            # Cleaned whole: the policy cannot recognize the rest of a secret.
            cleaned = self.display.clean(cell)
            return cleaned if len(cleaned) <= _LONGEST_END else f"…{cleaned[-_LONGEST_END:]}"
        if column.kind == "payload":
            return self.payload(None if cell is None else str(cell))
        return self.clean(cell) if isinstance(cell, str) else cell

    def path(self, path: Path) -> Path:
        return replace(
            path,
            title=self.clean(path.title),
            says=self.clean(path.says),
            refusal=self.clean(path.refusal),
        )

    def runbook(self, runbook: Runbook) -> Runbook:
        needs = [replace(one, says=self.clean(one.says)) for one in runbook.prerequisites]
        cautions = [self.clean(caution) for caution in runbook.cautions]
        return replace(
            runbook, name=self.clean(runbook.name), prerequisites=needs, cautions=cautions
        )
