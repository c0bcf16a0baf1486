"""Shows one incident, acknowledges it or resolves it: `flask opsjobs incident …`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from flask.cli import AppGroup
from typing_extensions import override

from ..actions.registry import ACTIONS
from ..core.display import Display
from ..escalations.queries import EscalationRow, list_escalations
from ..lifeline.queries import (
    EvidenceRow,
    find_incident,
    list_episodes,
    list_evidence,
    list_followers,
)
from ..lifeline.repairs import Repair, repairs_of
from . import _operate, current_host, number_of, open_snapshot, plain, to_json
from .incidents import as_object, say_incident


class _ByNumber(AppGroup):
    """A group in which a number instead of a command shows the incident with that number."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0].isdecimal():
            args = ["show", *args]
        return super().resolve_command(ctx, args)


incident = _ByNumber(
    "incident", help="Show an incident: `incident 7`. Acknowledge incidents, or resolve them."
)


@incident.command("show", short_help="Show an incident with its evidence.")
@click.argument("id", type=number_of("incident"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(id: int, as_json: bool) -> None:
    """Print the incident ID with its evidence, its episodes and its repairs.

    Reads only. Exits 0; 1 when there is no such incident; 2 when ID cannot be an id, or the database does not
    answer in time.
    """
    host = current_host()
    clean = Display(host.display, may_see=True).clean
    with open_snapshot(host) as read:
        found = find_incident(read.session, id)
        if found is None:
            click.echo(f"Error: there is no incident {id}", err=True)
            sys.exit(1)
        evidence = list_evidence(read.session, id, found.episode)
        episodes = list_episodes(read.session, found)
        followers = list_followers(read.session, id)
        escalations = list_escalations(read.session, id)
    repairs = repairs_of(found.class_, found.facts)
    if as_json:
        about = {
            **as_object(found, clean),
            "evidence": [_evidence_as_object(each, clean) for each in evidence],
            "episodes": [
                {
                    "number": each.number,
                    "began_at": each.began_at.isoformat(),
                    "ended_at": None if each.ended_at is None else each.ended_at.isoformat(),
                    "ended_by": each.ended_by,
                }
                for each in episodes
            ],
            "escalations": [_escalation_as_object(each, clean) for each in escalations],
            "followers": [each.id for each in followers],
            "repairs": [{"action": each.action, "targets": list(each.targets)} for each in repairs],
        }
        click.echo(to_json(about, indent=2))
        return
    lines = [*say_incident(found, read.now, clean)]
    if found.next_step:
        lines.append(f"    {clean(found.next_step)}")
    lines += ["", f"evidence of episode {found.episode}:", *_say_evidence(evidence, clean)]
    lines += [_say_escalation(each, clean) for each in escalations]
    lines += [f"also follows from it: {each.id}  {clean(each.title)}" for each in followers]
    lines += map(_say_repair, repairs)
    click.echo(plain(*lines))


def _say_repair(repair: Repair) -> str:
    if repair.action not in ACTIONS:
        return f"repair: {repair.action} comes with a later version"
    return f"repair: {repair.action} {' '.join(repair.targets)}".rstrip()


def _say_evidence(evidence: Sequence[EvidenceRow], clean: Callable[[str], str]) -> Iterator[str]:
    for row in evidence:
        facts = ", ".join(
            f"{name.replace('_', ' ')} {value if isinstance(value, str) else _moment(value)}"
            for name, value in row.known_facts
        )
        times = f" ({row.count:,} times)" if row.count > 1 else ""
        kind = row.kind.replace("_", " ")
        yield f"  {_moment(row.last_at)}  {kind}{times}, by {row.source}: {clean(facts)}"


def _say_escalation(row: EscalationRow, clean: Callable[[str], str]) -> str:
    said = row.reference or row.why
    about = f"escalation, episode {row.episode}, {row.event}: {row.state}"
    return f"{about}{f' ({clean(said)})' if said else ''}, {_moment(row.at)}"


def _escalation_as_object(row: EscalationRow, clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "episode": row.episode,
        "event": row.event,
        "state": row.state,
        "reference": None if row.reference is None else clean(row.reference),
        "why": None if row.why is None else clean(row.why),
        "job": row.job_id,
        "decided_at": row.decided_at.isoformat(),
        "ended_at": None if row.ended_at is None else row.ended_at.isoformat(),
    }


def _evidence_as_object(row: EvidenceRow, clean: Callable[[str], str]) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "source": row.source,
        "first_at": row.first_at.isoformat(),
        "last_at": row.last_at.isoformat(),
        "count": row.count,
        "facts": _clean_texts(row.facts, clean),
    }


def _clean_texts(value: Any, clean: Callable[[str], str]) -> Any:
    """The value as JSON, with each text in it as the display policy shows it."""
    if isinstance(value, Mapping):
        return {name: _clean_texts(one, clean) for name, one in value.items()}
    if isinstance(value, list):
        return [_clean_texts(one, clean) for one in value]
    return clean(value) if isinstance(value, str) else value


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


@incident.command("acknowledge", short_help="Acknowledge incidents until a time.")
@click.argument("ids", nargs=-1, required=True, type=number_of("incident"))
@click.option("--until", required=True, help=_operate.UNTIL)
@_operate.options
def acknowledge(ids: tuple[int, ...], until: str, **options: Any) -> None:
    """Acknowledge the incidents with these IDS: they show no badge and call nobody until then."""
    targets = [f"incident/{id}" for id in ids]
    _operate.run_action("incident.acknowledge", targets, params={"until": until}, **options)


@incident.command("unacknowledge", short_help="Take acknowledgements back.")
@click.argument("ids", nargs=-1, required=True, type=number_of("incident"))
@_operate.options
def unacknowledge(ids: tuple[int, ...], **options: Any) -> None:
    """Take the acknowledgement of the incidents with these IDS back."""
    _operate.run_action("incident.unacknowledge", [f"incident/{id}" for id in ids], **options)


@incident.command("resolve", short_help="Resolve incidents that are over.")
@click.argument("ids", nargs=-1, required=True, type=number_of("incident"))
@_operate.options
def resolve(ids: tuple[int, ...], **options: Any) -> None:
    """Resolve the incidents with these IDS. Refused (still_true) while a detector finds them."""
    _operate.run_action("incident.resolve", [f"incident/{id}" for id in ids], **options)
