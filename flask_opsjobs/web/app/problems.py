"""Lists the problems that a page can answer with. Each says what happened and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ...core.reading import WHAT_NARROWS


@dataclass
class Problem(Exception):
    """An error that becomes a page with this HTTP status. `todo` is a sentence, `command` a command to type.

    `searches` are suggestions for the search box, `retry_after` is in seconds, `link` is (address, text).
    `place` is where the mistake is in the text of the search box. A browser that requested a page is sent to
    `leads_to` instead of to the problem. `source` does not answer: what surrounds the page says it only once.
    """

    status: int
    title: str
    says: str
    todo: str = ""
    command: str = ""
    allow: str = ""
    searches: tuple[str, ...] = ()
    retry_after: int = 0
    link: tuple[str, str] | None = None
    place: tuple[int, int] | None = None
    leads_to: str | None = None
    source: str | None = None


def not_signed_in(
    permission: str | None, sign_in: str | None = None, leads_to: str | None = None
) -> Problem:
    """Nobody is signed in. `sign_in` is the sign-in address of the settings, and becomes a link.

    `leads_to` is that of the access policy: pages lead there, and all else links to it.
    """
    sign_in = leads_to or sign_in
    needs = f" It needs the permission {permission}." if permission else ""
    return Problem(
        403,
        "Not signed in",
        f"This page is for operators who are signed in to the application.{needs}",
        "" if sign_in else "Sign in to the application, then open this page again.",
        link=(sign_in, "Sign in") if sign_in else None,
        leads_to=leads_to,
    )


def denied(permission: str) -> Problem:
    """The host's access policy says no."""
    return Problem(
        403,
        f"Needs {permission}",
        f"You do not have the permission {permission}.",
        "The application's access policy grants it.",
    )


def cross_site_file() -> Problem:
    """Another site's page requested an export."""
    return Problem(
        403,
        "Request from another site",
        "A page of another site requested this export.",
        "Open the list here and export it from there, or paste the address into the browser.",
    )


def cross_site() -> Problem:
    """Another site's page sent a write, or the client does not say which page sent it."""
    return Problem(
        403,
        "Request from another site",
        "A page of another site sent this change, or the client sends no Sec-Fetch-Site or Origin header.",
        "Make the change on the page itself.",
    )


def no_such_page() -> Problem:
    """No page is at this address below our prefix."""
    return Problem(404, "No such page", "There is nothing at this address.")


def bad_request(says: str) -> Problem:
    """The request is malformed, or a check of the host's refused it; `says` is the host's sentence."""
    return Problem(
        400,
        "Refused before it was read",
        says or "This request cannot be read.",
        "Reload the page it was sent from, and send it again.",
    )


def wrong_method(method: str, allowed: str) -> Problem:
    """This address answers only to another HTTP method."""
    return Problem(
        405,
        "Method not allowed",
        f"This address does not answer to {method[:20]}, only to {allowed}.",
        "Open the page that the change belongs to, and use its buttons.",
        allow=allowed,
    )


def too_large() -> Problem:
    """A form larger than any that our pages send."""
    return Problem(
        413,
        "Too large",
        "This form is larger than any that our pages send. Nothing was done.",
        "A reason or a note has at most 2,000 characters, a selection at most 100 jobs. "
        "A longer result or payload is sent by flask opsjobs workflow, longer arguments by "
        "flask opsjobs enqueue.",
    )


def broken() -> Problem:
    """A bug of ours or of a policy. The log has the details, the page shows none of them."""
    return Problem(
        500,
        "A fault in this page",
        "Something unexpected went wrong. Nothing was changed (check the audit log to be sure).",
        "The application's log has the details. Try again, or do it with `flask opsjobs`.",
    )


def no_such_entry(name: str, known: Sequence[str]) -> Problem:
    """No cron entry has that name; `known` are the names that entries have."""
    todo = "Entries from code show once `flask opsjobs run` has started with that code."
    if known:
        more = f" and {len(known) - 5} more" if len(known) > 5 else ""
        todo = f"Known are {', '.join(known[:5])}{more}. {todo}"
    return Problem(404, "No such cron entry", f"There is no cron entry {name[:40]!r}.", todo)


def no_such_event(sequence: str) -> Problem:
    """No audit row has that sequence number. Audit rows are never removed."""
    return Problem(
        404,
        "No such decision",
        f"The audit has no row {sequence[:40]}.",
        "Its rows are numbered from 1 without a gap. Find it in the list.",
    )


def no_such_preview() -> Problem:
    """There is no preview with that number, or somebody else opened the form that was sent."""
    return Problem(
        404,
        "No such preview",
        "There is no preview at this address, or its form was opened under another name.",
        "Open it again. A preview is kept for some days: then start again from the job or queue.",
    )


_REMOVED = {
    "job": "Ended jobs are removed after their retention time",
    "workflow": "Ended workflows are removed after their retention time",
    "batch": "Ended batches are removed after their retention time",
    "incident": "Resolved incidents are removed after their retention time",
    "operation": "Ended operations are removed after their retention time",
    "failure": "A failure that did not happen for long is removed after its retention time",
}


def no_such_row(kind: str, id_: str) -> Problem:
    """No row of this kind, such as a job or an incident, has this id; it may have been removed."""
    says = f"There is no {kind} {id_[:40]}."
    return Problem(404, f"No such {kind}", says, f"{_REMOVED[kind]}; ids are whole numbers.")


def unknown_subject(says: str) -> Problem:
    """An address names nothing that forensics can tell of; `says` is the error of the registry."""
    return Problem(404, "No such subject", f"{says}.", "Look for it by its id or its name.")


def no_jobs_of_worker(name: str) -> Problem:
    """No worker of this name has a job; somebody has rescued them, or they ended."""
    return Problem(
        404,
        "No job to rescue",
        f"The worker {name[:40]} has no job, or there is no such worker.",
        "Its jobs were rescued, or they have ended. The page Workers shows what became of them.",
    )


def no_such_queue(name: str) -> Problem:
    """No queue is known by this name."""
    return Problem(
        404,
        "No such queue",
        f"No job, no worker and no decision names a queue {name[:60]}.",
        "A queue appears with its first job or worker.",
    )


def no_such_task(name: str) -> Problem:
    """No task is known by this name."""
    return Problem(
        404,
        "No such task",
        f"This code declares no task {name[:60]}, and none of its jobs was counted lately.",
        "Look for it among all tasks.",
    )


def no_such_redis(number: int) -> Problem:
    """The bridge reads no Redis of this number."""
    return Problem(
        404,
        "No such Redis",
        f"RQ's own view has no Redis with the number {number}.",
        "OPSJOBS_RQ_REDIS_URLS names further Redis servers.",
    )


def no_such_registry(name: str, known: Sequence[str]) -> Problem:
    """RQ has no registry of this name."""
    return Problem(
        404,
        "No such registry",
        f"RQ's queues have no registry {name[:40]!r}.",
        f"They have {', '.join(known)}.",
    )


def no_such_rq_job(rq_id: str, place: str) -> Problem:
    """The Redis has no job of this id."""
    return Problem(
        404,
        "Not in RQ",
        f"RQ on {place} has no job {rq_id[:60]!r}.",
        "RQ removes a job when its result or its failure expires. "
        "Search for it among the jobs here: an adopted job keeps its row.",
    )


def unreadable_in_rq(rq_id: str | None) -> Problem:
    """RQ's record of this job, or of a worker, is damaged, or something else is stored under its key."""
    what = "it" if rq_id is None else f"job {rq_id[:60]!r}"
    return Problem(
        404,
        "Not readable",
        f"RQ's record of {what} cannot be read: it is damaged, or something else is stored there.",
        "`rq info` and a worker fail on it too. Nothing was changed.",
    )


def no_answer_of_redis(place: str) -> Problem:
    """A Redis of RQ's own view does not answer."""
    return Problem(
        503,
        "Redis does not answer",
        f"Redis {place} does not answer.",
        "What RQ has there is not known. Ask again when it is back.",
        retry_after=5,
    )


def bridge_only_reads() -> Problem:
    """An address at which rq-dashboard requeues, deletes or empties."""
    return Problem(
        403,
        "Inspection only",
        "RQ's own view changes nothing: it neither requeues nor deletes nor empties.",
        "Open the job's own page, or select jobs of origin rq on Jobs: each change there has a preview and "
        "a row in the audit.",
    )


def no_such_limiter(name: str) -> Problem:
    """No process has declared it."""
    return Problem(
        404,
        "No such limiter",
        f"No process has declared a limiter {name[:60]}.",
        "A limiter appears when a worker or the loops start with code that declares it.",
    )


def no_such_view() -> Problem:
    """The saved view is gone, or belongs to another person."""
    return Problem(404, "No such view", "You have no saved view with this id.")


def unknown_word(word: str) -> Problem:
    """A word alone that is neither an id nor a known name, and whose reader may not search errors for it."""
    says = f"{word[:40]!r} is neither a job's id nor an RQ id, and no job has a task or queue of that name."
    searches = _searches(word, may_see_payload=False)
    return Problem(422, "Cannot read this", says, "Say where to look:", searches=searches)


def unknown_place(word: str, *, may_see_payload: bool) -> Problem:
    """A word to jump to, which is neither an id nor a known name."""
    if not word:
        return Problem(422, "Jump where?", "Nothing was asked for: neither an id nor a name.")
    says = (
        f"{word[:40]!r} is neither the id of a job, nor an RQ id such as opsjobs-42-1, nor workflow/7 or "
        "batch/7, and no job has a task, queue, workflow or batch of that name."
    )
    searches = _searches(word, may_see_payload=may_see_payload)
    return Problem(404, "Nothing of that name", says, "Search for it:", searches=searches)


def _searches(word: str, *, may_see_payload: bool) -> tuple[str, ...]:
    if len(word) > 200 or '"' in word or not word.isprintable():
        return ()
    text = f'"{word}"' if {" ", "*"} & set(word) else word
    return (f"tag:{text}", f"error:{text}") if may_see_payload else (f"tag:{text}",)


def too_long() -> Problem:
    """An address longer than any that our pages make."""
    return Problem(
        414,
        "Address too long",
        "The address of this page is longer than any we make.",
        "Shorten the search, or search for one part of it at a time.",
    )


def unreadable(what: str, *, place: tuple[int, int] | None = None) -> Problem:
    """A filter, cursor or form that cannot be read; `what` says why, `place` where in the search box."""
    return Problem(
        422, "Cannot read this", what, "Correct it, or start from all jobs.", place=place
    )


def no_draft(action: str, code: str | None, says: str) -> Problem:
    """An operation that cannot be drafted, as (code, sentence); nothing was frozen."""
    titles = {
        "nothing_matches": "No job matches",
        "too_many": "Too many jobs",
        "unauthorized": "A permission is missing",
    }
    return Problem(
        403 if code == "unauthorized" else 422,
        titles.get(code or "", "Cannot read this"),
        f"{says[:1].upper()}{says[1:]}.",
        f"Nothing was done: {action} was not drafted.",
    )


def too_slow(seconds: float) -> Problem:
    """A statement of the page exceeded its timeout."""
    return Problem(
        503,
        "Took too long",
        f"The database did not answer within {seconds:g} s, so the query of this page was canceled.",
        WHAT_NARROWS,
    )


def database_away(since: datetime | None, answered_at: datetime | None) -> Problem:
    """Postgres does not answer. `since` is when this process first noticed it."""
    how_long = f"has not answered since {_clock(since)}" if since else "does not answer"
    last = f" (it last answered this process at {_clock(answered_at)})" if answered_at else ""
    return Problem(
        503,
        "Postgres does not answer",
        f"Postgres, which records the jobs, {how_long}{last}.",
        "It is not known how many jobs wait. None is lost: what was committed stays in Postgres. "
        "Running jobs go on, and their ends are recorded when it is back. "
        "Check that Postgres runs and can be reached from here, then load this page again.",
        retry_after=5,
        source="postgres",
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M:%S} UTC"


def no_connection_left(most: int) -> Problem:
    """All database connections for pages are in use."""
    return Problem(
        503,
        "Too many pages at once",
        f"All {most} connections to the database that the pages of this process may use are in use.",
        "Try again in a moment. OPSJOBS_PAGE_CONNECTIONS sets how many there are.",
        retry_after=2,
    )


def heavy_busy(most: int) -> Problem:
    """This process already runs as many searches, exports and simulations as it may run at once."""
    return Problem(
        503,
        "Too many searches at once",
        f"This process already runs {most} searches, exports or simulations, as many as it may run at once.",
        "Try again in a moment.",
        retry_after=5,
    )


def too_many_actions(says: str) -> Problem:
    """This process already executes as many actions as it may execute at once."""
    return Problem(
        503, "Too many at once", f"{says[:1].upper()}{says[1:]}.", "Wait a moment.", retry_after=2
    )


def not_now(says: str) -> Problem:
    """An action needs something that is locked or does not answer; `says` names it."""
    return Problem(
        503, "Not now", f"{says}.", "Look in the audit whether it was done before you try again."
    )


def schema_behind(says: str) -> Problem:
    """The database schema is missing, or older than this code."""
    return Problem(
        503, "Schema behind", says, "Whoever deploys the application runs:", "flask db upgrade"
    )


def schema_ahead(says: str) -> Problem:
    """The schema is newer than this code: a deploy migrated the database while this process ran."""
    return Problem(
        503,
        "Schema newer than the code",
        f"{says[0].upper()}{says[1:]}.",
        "Whoever deploys the application restarts it with that release. Nothing is lost meanwhile.",
    )
