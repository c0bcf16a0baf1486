"""Verifying and exporting read the audit in batches: the memory of the process stays the same.

A small number of rows in each run of the tests; `--audit-rows 1000000` prints the figures.
"""

from __future__ import annotations

import faulthandler
import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from flask_opsjobs.audit import chain
from flask_opsjobs.core.db import Connection
from flask_opsjobs.host import Host
from tests.support.processes import Children

from .conftest import PAUSED

# What a child does with the audit, and by how many bytes its memory grew at most meanwhile.
GROWTH = """
import contextlib, json, os, re, sys, time
from pathlib import Path
from flask.cli import ScriptInfo
from tests.support.host import create_app

from flask_opsjobs.audit import verify
from flask_opsjobs.cli import audit as commands
from flask_opsjobs.web.audit import view

if len(sys.argv) > 1:  # few rows: then in small batches, so that these few would be many to keep
    verify.BATCH = view._BATCH = commands._PAGE = 50
app = create_app()
STATUS = Path("/proc/self/status")

def kilobytes(name):
    return int(re.search(rf"{name}:\\s+(\\d+)", STATUS.read_text())[1])

def command(*words):
    with contextlib.suppress(SystemExit):
        app.cli.main(["opsjobs", "audit", *words], obj=ScriptInfo(create_app=lambda: app))

def download(path):
    answer = app.test_client().get(f"/ops/jobs/{path}", buffered=False)
    last = b""
    for piece in answer.response:
        print(piece.decode(), end="")
        last = piece
    answer.close()
    assert b"complete" in last, last

WAYS = {
    "verify": lambda: command("verify", "--json"),
    "export": lambda: command("export"),
    "list": lambda: command("list", "--json", "--limit", "100000000"),
    "ndjson": lambda: download("audit.ndjson"),
    "csv": lambda: download("audit.csv?since=2026-01-01"),
}
command("verify", "--since", "1000000000")  # what is imported at the first use
download("audit.csv?actor=nobody")
found = {}
for name, way in WAYS.items():
    out = Path(name)
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = kilobytes("VmRSS"), time.monotonic()
    with out.open("w") as file, contextlib.redirect_stdout(file):
        way()
    took = time.monotonic() - begun
    found[name] = [kilobytes("VmHWM") - before, round(took, 1), out.stat().st_size]
    if name == "verify":
        found["state"] = json.loads(out.read_text())
    out.unlink()
Path("found.json").write_text(json.dumps(found))
"""
MANY = 100_000
_COLUMNS = (
    "sequence, at, actor, via, action, subject, targets, permission, reason, outcome, code,"
    " request_id, preview_id, previewed_at, before, after, canonical, key_id, previous_hash, hash"
)


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> int:
    """How many rows the audit gets."""
    found: int = request.config.getoption("audit_rows")
    if found >= MANY:
        faulthandler.cancel_dump_traceback_later()  # it ends a test after five minutes
    return found


@pytest.fixture
def signed(rows: int, host: Host, connection: Connection) -> None:
    """An audit of so many rows, signed as the writer does, but copied."""
    key = chain.derive_key(host.secrets[0])
    # Few rows are large, so that a process that kept them all would grow by 9 MB at least.
    after = {"text": "x" * max(6_000_000 // rows, 20)}
    previous, row = b"", b""
    with connection.cursor() as cursor:
        with cursor.copy(f"COPY opsjobs.audit_events ({_COLUMNS}) FROM STDIN") as copy:
            for sequence in range(1, rows + 1):
                decision = replace(PAUSED, after=after)
                columns = {"sequence": sequence, "key_id": chain.name_key(key)} | asdict(decision)
                columns = chain.storable(columns)
                canonical = chain.canonical_of(columns)
                row = chain.hash_of(key, previous, canonical)
                values: dict[str, Any] = columns | {
                    "before": json.dumps(columns["before"]),
                    "after": json.dumps(columns["after"]),
                    "canonical": canonical,
                    "previous_hash": previous,
                    "hash": row,
                }
                copy.write_row([values[name] for name in _COLUMNS.split(", ")])
                previous = row
        cursor.execute(
            "UPDATE opsjobs.audit_head SET sequence = %s, hash = %s, at = %s",
            (rows, row, PAUSED.at),
        )


@pytest.mark.slow
@pytest.mark.usefixtures("signed")
def test_memory_does_not_grow_with_the_rows(rows: int, children: Children, tmp_path: Any) -> None:
    words = ["small"] if rows < MANY else []
    child = children.python("-c", f"import os; os.chdir({str(tmp_path)!r})\n{GROWTH}", *words)
    assert child.wait(timeout=60 + rows / 200) == 0, child.log
    found = json.loads((tmp_path / "found.json").read_text())
    state = found.pop("state")
    assert (state["state"], state["rows"]) == ("intact", rows)
    for name, (growth, took, size) in found.items():
        print(f"{name}: {rows:,} rows in {took} s, memory grew by {growth:,} kB, {size:,} bytes")
        assert growth < (6_000 if rows < MANY else 20_000), name
        if name in ("export", "ndjson", "csv"):
            assert size > rows * len(PAUSED.reason or ""), name
