"""The one sentence at the top of the first page: the worst that is known, or that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..jobs.rows import Count
from .queries import Overview


@dataclass(frozen=True)
class Verdict:
    """`level` is a status word, `fact` the worst, `advice` what it means or what to do.

    `about` says what to link to: `failed`, `loops`, `workers`, `books` or `queue/<name>`; None links nowhere.
    """

    level: str
    fact: str
    advice: str
    about: str | None = None


def judge(seen: Overview, *, is_suspended: bool = False) -> Verdict:
    """The worst of what an overview shows; the first rule that has something to say decides.

    With `is_suspended` RQ's own flag tells all workers to take nothing: nothing runs, whatever else is well.
    """
    if is_suspended:
        advice = "They take no job, of no queue, until somebody says `rq resume -u`, with the URL of that Redis."
        return Verdict("open", "All workers are suspended by RQ's own command.", advice)
    return next(said for rule in _RULES for said in rule(seen))


def _no_loop_awake(seen: Overview) -> Iterator[Verdict]:
    if not any(loop.is_awake for loop in seen.loops):
        fact = "No loop is awake." if seen.loops else "No loop has ever run."
        advice = "Jobs that come due later, are lost or are orphaned stay where they are: start `flask opsjobs run`."
        yield Verdict("open", fact, advice, "loops" if seen.loops else None)


def _queue_without_worker(seen: Overview) -> Iterator[Verdict]:
    starving = [
        queue for queue in seen.queues if queue.due and not queue.is_paused and not queue.listeners
    ]
    for queue in sorted(starving, key=lambda queue: -queue.due):
        more = len(starving) - 1
        also = f" So {_have(more, 'other queue')}." if more else ""
        advice = f"Nobody takes what is in it: start `flask opsjobs worker {queue.name}`.{also}"
        fact = f"Queue {queue.name} has {_many(queue.due, 'due job')} and no live worker."
        yield Verdict("open", fact, advice, f"queue/{queue.name}")


def _loops_silent(seen: Overview) -> Iterator[Verdict]:
    if silent := [loop.loop for loop in seen.loops if not loop.is_awake]:
        fact = f"{_list('The loop', silent)} {'is' if len(silent) == 1 else 'are'} silent."
        yield Verdict(
            "open", fact, "Another loop of the same process is awake; its log says why.", "loops"
        )


def _jobs_unaccounted(seen: Overview) -> Iterator[Verdict]:
    off = [book for book in seen.books if book.unaccounted]
    for book in sorted(off, key=lambda book: -abs(book.unaccounted)):
        number = abs(book.unaccounted)
        if book.unaccounted > 0:
            fact = f"{_many(number, 'job')} of queue {book.queue} {_is(number)} unaccounted for."
            advice = "They were recorded, and neither removed by retention nor kept: somebody deleted the rows."
        else:
            fact = f"Queue {book.queue} has {_many(number, 'job')} that nobody recorded."
            advice = "Rows came in past `enqueue`, as by a restore of the database."
        yield Verdict("open", fact, advice, "books")


def _books_differ(seen: Overview) -> Iterator[Verdict]:
    for what, numbers in (
        ("handed to RQ and in no structure of Redis", [b.queued_nowhere for b in seen.books]),
        ("started and held by no worker", [b.started_unheld for b in seen.books]),
        ("in Redis without a row", [b.deliveries_without_row for b in seen.books]),
    ):
        if number := sum(numbers):
            fact = f"{_many(number, 'job')} {_is(number)} {what}."
            yield Verdict("warned", fact, "The loops put that right by themselves.", "books")


def _failed_lately(seen: Overview) -> Iterator[Verdict]:
    if seen.failed_last_hour.number:
        last = seen.failures[0].worker if seen.failures else ""
        fact = f"{_counted(seen.failed_last_hour, 'job')} failed in the last hour."
        yield Verdict("open", fact, f"The last one: {last}." if last else "", "failed")


def _worker_missing(seen: Overview) -> Iterator[Verdict]:
    if missing := [executor.name for executor in seen.executors if executor.state == "missing"]:
        fact = f"{_list('Worker', missing)} went missing within a day."
        yield Verdict("warned", fact, "What was in hand there has been put back.", "workers")


def _worker_late(seen: Overview) -> Iterator[Verdict]:
    if late := [executor.name for executor in seen.executors if executor.state == "late"]:
        fact = (
            f"{_list('Worker', late)} {'is' if len(late) == 1 else 'are'} late with a sign of life."
        )
        yield Verdict("warned", fact, "If it stays away, its jobs are put back.", "workers")


def _paused_with_jobs(seen: Overview) -> Iterator[Verdict]:
    if paused := [queue.name for queue in seen.queues if queue.is_paused and queue.due]:
        fact = (
            f"{_list('Queue', paused)} {'is' if len(paused) == 1 else 'are'} paused with due jobs."
        )
        yield Verdict(
            "warned", fact, "Nothing is handed out until somebody resumes.", f"queue/{paused[0]}"
        )


def _loop_failed(seen: Overview) -> Iterator[Verdict]:
    if failing := [loop.loop for loop in seen.loops if loop.error]:
        fact = f"{_list('The loop', failing)} failed in the last pass."
        yield Verdict("warned", fact, "It tries again by itself.", "loops")


def _no_worker(seen: Overview) -> Iterator[Verdict]:
    if not seen.alive:
        yield Verdict("warned", "No worker is running.", "Start one: `flask opsjobs worker`.")


def _all_well(seen: Overview) -> Iterator[Verdict]:
    advice = f"Nothing failed in the last hour, every loop is awake, {_have(len(seen.alive), 'worker')} a sign of life."
    if seen.books:
        advice += " Nothing is lost: the books balance."
    yield Verdict("healthy", "Nothing needs a person.", advice)


_RULES: Sequence[Callable[[Overview], Iterator[Verdict]]] = (
    _no_loop_awake,
    _queue_without_worker,
    _loops_silent,
    _jobs_unaccounted,
    _failed_lately,
    _worker_missing,
    _worker_late,
    _paused_with_jobs,
    _books_differ,
    _loop_failed,
    _no_worker,
    _all_well,
)


def _many(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _have(number: int, thing: str) -> str:
    return f"{_many(number, thing)} {'has' if number == 1 else 'have'}"


def _counted(count: Count, thing: str) -> str:
    more = " or more" if count.kind == "at_least" else ""
    return f"{count.number:,}{more} {thing}{'' if count.number == 1 else 's'}"


def _list(thing: str, names: Sequence[str]) -> str:
    """`Worker a`, `Workers a and b`, `Workers a, b and 3 more`."""
    if len(names) == 1:
        return f"{thing} {names[0]}"
    shown = ", ".join(names[:2]) if len(names) > 2 else " and ".join(names)
    return f"{thing}s {shown}" + (f" and {len(names) - 2} more" if len(names) > 2 else "")
