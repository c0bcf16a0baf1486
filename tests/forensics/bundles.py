"""A bundle with one of everything, in which every text of a subject, a host or a person is the given text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from flask_opsjobs.core.history import Event
from flask_opsjobs.forensics.bundle import (
    Bundle,
    Column,
    EvidenceTable,
    History,
    Lack,
    LeftOut,
    Path,
    Prerequisite,
    Related,
    Runbook,
    TableRow,
)

AT = datetime(2026, 11, 25, 14, 2, 10, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    """A time before the bundle was read."""
    return AT - timedelta(minutes=minutes)


def make_bundle(text: str = "mail", **values: Any) -> Bundle:
    """The bundle; `values` win."""
    bundle: dict[str, Any] = {
        "subject": "job/84211",
        "title": f"Job 84211 {text}",
        "state": "started",
        "diagnosis": f"It runs out of memory, says {text}.",
        "quote": text,
        "completeness": "partial evidence",
        "lacking": [
            Lack(f"Where its delivery was {text}", ago(21), ago(20)),
            Lack(text, ago(6)),
            Lack(text, None, ago(40), is_removed=True),
        ],
        "since": ago(22),
        "until": AT,
        "timeline": History(
            [
                Event(ago(6), "blind", text, "nobody: inferred"),
                Event(ago(8), "missing", text, text, subject="worker/wk-eu-3"),
                Event(ago(12), "seen", text, "operator", label=text, audit=5127),
                Event(ago(18), "operation", text, "operator", subject="operation/74"),
                Event(ago(19), "failed", text, "worker", payload=text),
                Event(ago(20), "blind", text, "nobody: inferred", until=ago(19.5)),
                Event(ago(21), "deploy", text, text, label=text, subject="deploy/3"),
                Event(ago(21), "queued", text, "observer", after=ago(21.5)),
            ],
            [LeftOut(text, ago(22), 1_200), LeftOut(text)],
        ),
        "evidence": [
            EvidenceTable(
                text,
                [
                    Column("attempt", "number"),
                    Column("began", "moment"),
                    Column("ran", "seconds"),
                    Column("peak", "bytes"),
                    Column("on"),
                    Column("error", "payload"),
                ],
                [
                    TableRow([1203, ago(19), 19.25, 1_910_000_000, text, text], "attempt/84211-2"),
                    TableRow([1, ago(20), None, None, text, None]),
                ],
                LeftOut(text),
            )
        ],
        "related": [Related("Worker", text, "worker/wk-eu-3", text), Related("Same report", text)],
        "paths": [
            Path("action", text, text, action="job.discard", target="job/84211"),
            Path("bridge", text, text, refusal=text),
            Path("follow_up", text, text, status="unconfigured"),
            Path("follow_up", text, text, status="invoked", url="https://tickets.example/OPS-2294"),
            Path("follow_up", text, text, status="failed"),
        ],
        "runbook": Runbook(
            text,
            "https://wiki.example/poison",
            [
                Prerequisite("met", text),
                Prerequisite("missing", text),
                Prerequisite("unknown", text),
            ],
            [text],
        ),
        "read_at": AT,
    }
    return Bundle(**bundle | values)
