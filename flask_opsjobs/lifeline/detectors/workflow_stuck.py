"""Finds runs of workflows that cannot be advanced, or that contradict themselves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ...core import sql
from ...workflows.checks import BrokenInvariant, checks
from ..finding import MOST_FINDINGS, Detector, DetectorPass, Facts, Finding, Observation, Words

# In each pass the next open runs are checked, as many as have so many steps together.
_STEPS = 300
# So many broken runs are kept in mind and checked again in each pass.
_MOST_BROKEN = 20
_SHOWN = 5


def _detect(facts: Facts) -> DetectorPass:
    found = facts.look("detect_stuck_workflows", _finding)
    troubled = {each.subject for each in found.findings}
    broken, is_whole = _find_broken(facts)
    more = [each for each in broken if each.subject not in troubled]
    return replace(
        found,
        findings=[*found.findings, *more],
        is_complete=found.is_complete and is_whole and len(found.findings) < MOST_FINDINGS,
    )


def _find_broken(facts: Facts) -> tuple[list[Finding], bool]:
    """The runs of which this pass and the last one that checked them say the same; whether all were checked.

    A round over all open runs takes as many passes as they have steps. A run that is broken is checked again
    in the next pass.
    """
    memory = facts.memory.setdefault("open_runs", {"after": 0, "is_whole": False, "broken": {}})
    before: Mapping[int, frozenset[tuple[str, str | None]]] = memory["broken"]
    values = {"after": memory["after"], "steps": _STEPS, "limit": _STEPS}
    rows = facts.connection.execute(sql.load("list_runs_to_check"), values).fetchall()
    runs = {run for run, _ in rows}
    memory["after"] = max(runs, default=0)
    if not rows or rows[-1][1]:
        memory |= {"after": 0, "is_whole": True}
    by_run: dict[int, list[BrokenInvariant]] = defaultdict(list)
    for each in checks(facts.connection, sorted(runs | before.keys())):
        by_run[each.run].append(each)
    now = {
        run: frozenset((each.code, each.step) for each in found) for run, found in by_run.items()
    }
    memory["broken"] = dict(list(now.items())[:_MOST_BROKEN])
    findings = [
        _finding_of_broken(run, [each for each in found if (each.code, each.step) in before[run]])
        for run, found in by_run.items()
        if not now[run].isdisjoint(before.get(run, ()))
    ]
    return findings, memory["is_whole"] and len(now) <= _MOST_BROKEN


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=f"workflow/{row['id']}",
        affected=1,
        facts={"workflow": row["id"], "name": row["name"], "trouble": row["trouble"]},
        evidence=(Observation("trouble", "advance", {"trouble": row["trouble"]}),),
    )


def _finding_of_broken(run: int, broken: Sequence[BrokenInvariant]) -> Finding:
    says = [f"{each.step}: {each.says}" if each.step else each.says for each in broken[:_SHOWN]]
    return Finding(
        subject=f"workflow/{run}",
        affected=1,
        facts={"workflow": run, "broken": says, "number": len(broken)},
        evidence=(Observation("broken", "detect", {"says": says}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    name = f" ({facts['name']})" if facts.get("name") else ""
    why = f"It cannot be advanced: {facts.get('trouble')}."
    if "broken" in facts:
        why = f"Its rows contradict each other. {'; '.join(facts['broken'])}."
    return Words(title=f"Workflow {facts['workflow']}{name} is stuck", why=why)


DETECTOR = Detector(
    class_="workflow_stuck",
    title="Stuck workflows",
    severity="critical",
    found_when="a run cannot be advanced for 60 s, because each try fails; or two passes find that its rows "
    "contradict each other, and it stays so for 60 s",
    near_miss="a run that is being advanced; one that waits for a signal, a time or a limit",
    say=_say,
    detect=_detect,
    open_after=timedelta(seconds=60),
    repairs=("workflow.retry", "workflow.cancel"),
    affects=("workflow", "workflows"),
)
