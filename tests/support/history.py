"""Keeps what happened to runs of workflows, in the order of the commits, and tells it to the oracle.

Triggers write it, each in the transaction of what it is about, whoever made that. Postgres must track the
time of commits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from flask_opsjobs.core.db import Connection
from tests.workflows.oracle import (
    BY_ADVANCE,
    CANCELED,
    DEPENDENCY,
    SKIPPED,
    CancelRun,
    CancelStep,
    End,
    Ended,
    EndOfRun,
    Event,
    Expanded,
    Retry,
    Sent,
    Skip,
)

TRIGGERS = """
    CREATE TABLE public.history (
        seq bigserial PRIMARY KEY, tx bigint NOT NULL DEFAULT txid_current(), run bigint, kind text NOT NULL,
        step text, facts jsonb NOT NULL);

    CREATE FUNCTION public.note_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.history (run, kind, step, facts)
        SELECT new.workflow_id, CASE WHEN new.ended_at IS NULL THEN 'reopened' ELSE 'ended' END, s.name,
            jsonb_build_array(new.state, new.ended_by, extract(epoch FROM new.ended_at))
        FROM opsjobs.steps s WHERE s.job_id = new.id;
        RETURN new; END $$;
    CREATE TRIGGER note_job AFTER UPDATE ON opsjobs.jobs FOR EACH ROW
        WHEN (new.workflow_id IS NOT NULL AND old.state <> new.state
            AND (old.ended_at IS NOT NULL OR new.ended_at IS NOT NULL))
        EXECUTE FUNCTION public.note_job();

    CREATE FUNCTION public.note_asked() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.history (run, kind, step, facts)
        SELECT new.workflow_id, 'asked', s.name, 'null' FROM opsjobs.steps s WHERE s.job_id = new.id;
        RETURN new; END $$;
    CREATE TRIGGER note_asked AFTER UPDATE ON opsjobs.jobs FOR EACH ROW
        WHEN (new.workflow_id IS NOT NULL AND new.state = 'started'
            AND old.cancel_requested_at IS NULL AND new.cancel_requested_at IS NOT NULL)
        EXECUTE FUNCTION public.note_asked();

    CREATE FUNCTION public.note_map() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.history (run, kind, step, facts)
        SELECT new.workflow_id, 'expanded', new.name, to_jsonb(count(*))
        FROM opsjobs.steps WHERE map_of = new.job_id;
        RETURN new; END $$;
    CREATE TRIGGER note_map AFTER UPDATE ON opsjobs.steps FOR EACH ROW
        WHEN (old.expanded_at IS NULL AND new.expanded_at IS NOT NULL) EXECUTE FUNCTION public.note_map();

    CREATE FUNCTION public.note_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF old.cancel_requested_at IS NULL AND new.cancel_requested_at IS NOT NULL THEN
            INSERT INTO public.history (run, kind, facts) VALUES (new.id, 'canceled', 'null');
        ELSIF old.ended_at IS NULL AND new.ended_at IS NOT NULL THEN
            INSERT INTO public.history (run, kind, facts) VALUES (new.id, 'run_ended',
                jsonb_build_array(new.state, new.ended_by, new.ended_by_step));
        ELSIF old.ended_at IS NOT NULL AND new.ended_at IS NULL THEN
            INSERT INTO public.history (run, kind, facts) VALUES (new.id, 'run_reopened', 'null');
        END IF;
        RETURN new; END $$;
    CREATE TRIGGER note_run AFTER UPDATE ON opsjobs.workflows FOR EACH ROW EXECUTE FUNCTION public.note_run();

    CREATE FUNCTION public.note_signal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.history (run, kind, facts) VALUES (new.run, 'sent', to_jsonb(new.id));
        RETURN new; END $$;
    CREATE TRIGGER note_signal AFTER INSERT ON opsjobs.signals FOR EACH ROW
        EXECUTE FUNCTION public.note_signal();
"""
_ROWS = """
    SELECT pg_xact_commit_timestamp(xmin) AS at, seq, tx, run, kind, step, facts FROM public.history
    ORDER BY at, seq
"""


@dataclass
class History:
    """What happened to one run: the events for the oracle, the ends of the run, and of its steps now.

    `times` are when they ended, by the times that their jobs show.
    """

    events: list[Event] = field(default_factory=list)
    ends: list[EndOfRun] = field(default_factory=list)
    steps: dict[str, End | None] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    signals: list[str] = field(default_factory=list)
    is_canceling: bool = False
    # The steps that were asked to stop by themselves, and may still end otherwise.
    asked: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Fact:
    tx: int
    run: int | None
    kind: str
    step: str
    facts: Any


def read_histories(connection: Connection, keys: Mapping[str, int]) -> dict[int, History]:
    """The history of each run by its id. `keys` are the runs by the keys of their signals."""
    rows = connection.execute(_ROWS).fetchall()
    signals = {
        id: (name, key, outcome)
        for id, name, key, outcome in connection.execute(
            "SELECT id, name, key, outcome FROM opsjobs.signals"
        )
    }
    facts = []
    for _, _, tx, run, kind, step, what in rows:
        if kind == "sent":
            what = signals[what]
            run = keys[what[1]]
        facts.append(_Fact(tx, run, kind, step, what))
    histories: dict[int, History] = {run: History() for run in keys.values()}
    for (_, run), group in groupby(facts, lambda fact: (fact.tx, fact.run)):
        assert run is not None
        _tell(histories.setdefault(run, History()), list(group))
    return histories


def _tell(history: History, facts: Sequence[_Fact]) -> None:
    """Add what one transaction did."""
    history.events += _events(history, facts)
    for fact in facts:
        match fact.kind:
            case "ended":
                history.steps[fact.step] = (fact.facts[0], fact.facts[1])
                history.times[fact.step] = fact.facts[2]
                history.asked.discard(fact.step)
            case "reopened":
                history.steps[fact.step] = None
            case "asked" if not history.is_canceling:
                history.asked.add(fact.step)
            case "canceled" | "run_reopened":
                history.is_canceling = fact.kind == "canceled"
            case "run_ended":
                history.ends.append(EndOfRun(*fact.facts))
            case "sent":
                history.signals.append(fact.facts[2])


def _events(history: History, facts: Sequence[_Fact]) -> Iterator[Event]:
    kinds = {fact.kind for fact in facts}
    skipped = [
        fact.step for fact in facts if fact.kind == "ended" and tuple(fact.facts[:2]) == SKIPPED
    ]
    known = ("run_reopened" in kinds, dict(history.steps), dict(history.times))
    if skipped:
        (step,) = skipped
        yield Skip(step, *known)
        return
    if "reopened" in kinds:
        # Not what was canceled behind them: the oracle says what that is. Nor a step whose end the operator
        # did not see yet.
        reopened = [fact.step for fact in facts if fact.kind == "reopened"]
        steps = tuple(step for step in reopened if history.steps[step] != DEPENDENCY)
        yield Retry(steps, *known)
        return
    for fact in facts:
        match fact.kind:
            case "ended":
                yield from _end(history, fact.step, (fact.facts[0], fact.facts[1]))
            case "asked" if not history.is_canceling:
                yield CancelStep(fact.step, was_started=True)
            case "expanded":
                yield Expanded(fact.step, fact.facts)
            case "canceled":
                yield CancelRun()
            case "sent":
                name, key, outcome = fact.facts
                yield Sent(name, key, outcome=outcome)


def _end(history: History, step: str, end: End) -> Iterator[Event]:
    """Tell how a step ended, but not what the oracle computes: what `advance` and a canceled run end."""
    if end == CANCELED and step not in history.asked:
        if not history.is_canceling:
            yield CancelStep(step)
    elif end not in BY_ADVANCE:
        yield Ended(step, end)
