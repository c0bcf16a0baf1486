"""Lists decisions, and verifies and exports their chain: `flask opsjobs audit …`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import inf
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from ..audit import queries
from ..audit import verify as verifying
from ..audit.filter import CONDITIONS, AuditFilter, BadAuditFilter
from ..audit.queries import EventRow
from ..audit.verify import ChainCheck
from ..core.display import Display
from ..host import Host
from . import current_host, number_of, plain, to_json

# click exits with 2 for a wrong command line; here 2 also means that the chain could not be read.
_EXITS = {"intact": 0, "broken": 1, "unverifiable": 3}

# So many decisions are read at once.
_PAGE = 100
_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")
_HELP = {
    "actor": "Who decided.",
    "action": "What was decided, such as job.retry.",
    "outcome": "done or refused.",
    "q": "A target such as job/42, or a text in the targets and the reason.",
    "request_id": "The id of the HTTP request.",
    "since": "Not earlier than this: 2h ago as 2h, or a time in UTC.",
    "until": "Earlier than this: 1h ago as 1h, or a time in UTC.",
    "operation": "About this operation, or starting it.",
    "incident": "About this incident, or answering it.",
}

audit = AppGroup("audit", help="List, verify and export the audit: who did what, when and why.")


def head(text: str) -> tuple[int, bytes]:
    """The sequence and hash of a logged head, `1204:9f3c…`. Any other text is wrong usage."""
    found = _HEAD.fullmatch(text)
    if found is None:
        raise click.BadParameter(
            "write it as in the log: 1204:9f3c…, with all 64 digits of the hash"
        )
    return int(found[1]), bytes.fromhex(found[2])


@audit.command("verify")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--since",
    default=1,
    type=number_of("row"),
    help="The first row to verify; the row before it is trusted.",
)
@click.option(
    "--head", "heads", multiple=True, type=head, help="A head from the log, such as 1204:9f3c…"
)
def verify(as_json: bool, since: int, heads: tuple[tuple[int, bytes], ...]) -> None:
    """Recompute every hash, and say whether the chain is intact.

    Exits with 0 when it is intact up to its head, 1 when a row is broken, 2 when it could not be read, 3 when
    rows are signed with a key that is no longer in SECRET_KEY or SECRET_KEY_FALLBACKS.
    """
    host = current_host()
    with _reading(host) as session:
        found = verifying.verify(session, host.secrets, first=since, expected=dict(heads))
    if since > 1 and not found.rows and found.broken is None:
        raise click.UsageError(f"there is no row {since}")
    click.echo(to_json(_plain(found)) if as_json else plain(_words(found)))
    raise SystemExit(_EXITS[found.state])


@audit.command("export")
# There is only one format so far. A script that names it stays right when more formats are added.
@click.option(
    "--format",
    type=click.Choice(["ndjson"]),
    default="ndjson",
    show_default=True,
    expose_value=False,
)
@click.option("--since", default=1, type=number_of("row"), help="The first row to write.")
@click.option("--limit", type=click.IntRange(1), help="The most rows to write.  [default: all]")
def export(since: int, limit: int | None) -> None:
    """Print every row as it is signed, one JSON object per line.

    The display policy is left out. `hash` is HMAC-SHA256 over the bytes of `previous_hash` and the text
    `canonical`. Exits with 2 when there is no row from --since on.
    """
    host = current_host()
    with _reading(host) as session:
        last = since - 1
        if since > 1 and not queries.list_links(session, last, 1):
            raise click.UsageError(f"there is no row {since}")
        end = inf if limit is None else last + limit
        while links := queries.list_links(session, last, int(min(verifying.BATCH, end - last))):
            for link in links:
                row = {
                    "sequence": link.sequence,
                    "canonical": link.canonical,
                    "key_id": link.key_id,
                    "previous_hash": link.previous_hash.hex(),
                    "hash": link.hash.hex(),
                }
                click.echo(to_json(row))
            last = links[-1].sequence


def _filtered(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a filter, the same as the parameters of the page."""
    for name in reversed(CONDITIONS):
        option = "--search" if name == "q" else f"--{name.replace('_', '-')}"
        function = click.option(option, name, default="", help=_HELP[name])(function)
    return function


@audit.command("list")
@_filtered
@click.option("--limit", default=25, show_default=True, type=click.IntRange(1))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def list_decisions(limit: int, as_json: bool, **conditions: str) -> None:
    """Print the newest decisions that match, through the display policy.

    The options mean the same as on the page of the audit.
    """
    host = current_host()
    try:
        wanted = AuditFilter.from_query(conditions).but(limit=_PAGE)
    except BadAuditFilter as error:
        raise click.UsageError(f"{error}") from None
    display = Display(host.display, may_see=True)
    before, now, rest = None, datetime.now(UTC), limit
    with _reading(host) as session:
        while rest:
            found = queries.page_of_events(session, wanted, now, before=before, shown=display.clean)
            for row in found.rows[:rest]:
                shown = _shown(row, display)
                click.echo(to_json(shown) if as_json else plain(_line(shown)))
            rest -= min(rest, len(found.rows))
            before = found.older
            if before is None:
                break
    if rest == limit and not as_json:
        click.echo("no decision matches")


def _shown(row: EventRow, display: Display) -> dict[str, Any]:
    """A decision as it is printed: without before and after, which may hold payload."""
    return {
        "sequence": row.sequence,
        "at": row.at.astimezone(UTC).isoformat(),
        "actor": display.clean(row.actor),
        "via": row.via,
        "action": row.action,
        "subject": display.clean(row.subject),
        "targets": [display.clean(target) for target in row.targets],
        "outcome": row.outcome,
        "code": row.code,
        "reason": None if row.reason is None else display.clean(row.reason),
        "request_id": None if row.request_id is None else display.clean(row.request_id),
    }


def _line(shown: Mapping[str, Any]) -> str:
    outcome = shown["code"] or shown["outcome"]
    words = [
        f"{shown['sequence']:>7}  {shown['at'][:19].replace('T', ' ')}  {outcome:<12}",
        f"{shown['actor']}  {shown['action']}  {shown['subject']}",
        *([shown["reason"]] if shown["reason"] else []),
    ]
    return "  ".join(words)


@contextmanager
def _reading(host: Host) -> Iterator[Session]:
    """A session in autocommit mode: each statement is a transaction, so a long check holds back no vacuum."""
    host.require_schema()
    with Session(host.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        yield session


def _words(found: ChainCheck) -> str:
    parts = [f"rows {found.first} to {found.last}, head {found.last}:{found.hash.hex()}"]
    if found.rows == 0:
        parts = [f"there is no row {found.first} or later"]
    if found.unknown:
        begin, end = found.unknown
        parts.append(
            f"{found.unknown_rows} of them, between {begin} and {end}, are signed with a key that is not "
            "given: put the old SECRET_KEY into SECRET_KEY_FALLBACKS, or verify only the later rows with "
            f"--since {end + 1}"
        )
    if found.broken:
        broken = found.broken
        parts = [f"at row {broken.sequence} ({broken.code}): {broken.says}"]
        if found.outside and broken.code not in ("outside", "behind_head"):
            parts.append(f"{found.outside} rows are outside the chain")
    return f"{found.state}: {'; '.join(parts)}"


def _plain(found: ChainCheck) -> dict[str, Any]:
    broken = found.broken
    return {
        "state": found.state,
        "first": found.first,
        "last": found.last,
        "rows": found.rows,
        "outside": found.outside,
        "head": f"{found.last}:{found.hash.hex()}",
        "broken": broken
        and {"sequence": broken.sequence, "code": broken.code, "says": broken.says},
        "unverifiable": found.unknown
        and {"rows": found.unknown_rows, "first": found.unknown[0], "last": found.unknown[1]},
    }
