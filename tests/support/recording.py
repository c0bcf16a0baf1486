"""Ends jobs through a real recorder, and notes its turns and its heartbeats in their order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flask_opsjobs.core.outage import Outage
from flask_opsjobs.endings import EndedAttempt
from flask_opsjobs.engine.worker.heartbeat import Heartbeat
from flask_opsjobs.engine.worker.recorder import Recorder
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench
from tests.support.waiting import wait_until

Record = Callable[..., None]

# Notes each transaction that moves steps which wait, each try to fold a batch, each failed try to advance a
# run, and each heartbeat.
_NOTE_TURNS = """
    CREATE TABLE public.turns (seq bigserial, kind text, tx bigint DEFAULT txid_current());
    CREATE FUNCTION note_turn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.turns (kind) VALUES (tg_argv[0]); RETURN new; END $$;
    CREATE TRIGGER moved AFTER UPDATE ON opsjobs.jobs FOR EACH ROW
        WHEN (old.state = 'deferred' AND new.state <> 'deferred') EXECUTE FUNCTION note_turn('moved');
    CREATE TRIGGER tried AFTER UPDATE OF trouble ON opsjobs.workflows
        EXECUTE FUNCTION note_turn('tried');
    CREATE TRIGGER tried AFTER UPDATE OF state, trouble ON opsjobs.batches
        EXECUTE FUNCTION note_turn('tried');
    CREATE TRIGGER beat AFTER UPDATE OF heartbeat_at ON opsjobs.workers FOR EACH ROW
        EXECUTE FUNCTION note_turn('beat');
"""
_TURNS = "SELECT kind, count(*)::int AS n FROM public.turns GROUP BY kind, tx ORDER BY min(seq)"
_AT_REST = """
    SELECT FROM (SELECT kind FROM public.turns ORDER BY seq DESC LIMIT 10) AS latest
    HAVING count(*) FILTER (WHERE kind = 'beat') = 10
"""


def note_turns(bench: Bench) -> None:
    """From now on."""
    bench.connection.execute(_NOTE_TURNS)


def turns_of(bench: Bench) -> list[tuple[str, int]]:
    """The kind of each, `beat` for a heartbeat, and how many rows it wrote, once ten turns only beat.

    Forgets them.
    """
    wait_until(lambda: bench.rows(_AT_REST), what="the recorder to be at rest")
    found = [(turn["kind"], turn["n"]) for turn in bench.rows(_TURNS)]
    bench.connection.execute("DELETE FROM public.turns")
    return found


@contextmanager
def recording(bench: Bench, heartbeat_seconds: float) -> Iterator[Record]:
    """A function that ends started jobs, and returns when all ends are written."""
    heartbeat = Heartbeat(bench.worker_id, heartbeat_seconds)
    outage = Outage(logging.getLogger("test"), "")
    recorder = Recorder(bench.host, heartbeat, outage, lambda: None)
    recorder.start()

    def record(jobs: Sequence[int], kind: Any = "returned") -> None:
        for job in jobs:
            wait_until(recorder.keeps_up, 10)
            outcome = Outcome(kind=kind)
            recorder.collect(EndedAttempt(job, 1, bench.worker_id, bench.name, outcome))
            recorder.submit()
        wait_until(lambda: not bench.rows(_LEFT, [*jobs]), 60)

    yield record
    assert recorder.stop(30)


_LEFT = "SELECT 1 FROM opsjobs.jobs WHERE id = ANY (%s) AND state = 'started' LIMIT 1"
