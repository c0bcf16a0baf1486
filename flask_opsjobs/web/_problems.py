"""What may stand in the way of a page; each says what happened and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Problem(Exception):
    """Answered as a page of its own with `status`. `todo` is a sentence, `command` something to type."""

    status: int
    title: str
    says: str
    todo: str = ""
    command: str = ""


def not_signed_in(permission: str | None) -> Problem:
    """Nobody is signed in. Never a redirect: where to sign in, only the host knows."""
    needs = f" It needs the permission {permission}." if permission else ""
    return Problem(
        403,
        "Not signed in",
        f"This page is for operators who are signed in to the application.{needs}",
        "Sign in to the application, then open this page again.",
    )


def denied(permission: str) -> Problem:
    """The host's access policy says no."""
    return Problem(
        403,
        f"Needs {permission}",
        f"You do not have the permission {permission}.",
        "The application's access policy grants it.",
    )


def cross_site() -> Problem:
    """A write that another site's page sent, or that cannot be told from one."""
    return Problem(
        403,
        "Not from here",
        "This change was sent by a page of another site, or by a browser that does not say from where.",
        "Make the change on the page itself.",
    )


def no_such_page() -> Problem:
    """Below our prefix, but nothing of ours."""
    return Problem(404, "No such page", "There is nothing at this address.")


def no_such_job(job_id: str) -> Problem:
    """No row; perhaps there was one."""
    return Problem(
        404,
        "No such job",
        f"There is no job {job_id[:40]}.",
        "Ended jobs are removed when their time is over; ids are whole numbers.",
    )


def too_long() -> Problem:
    """An address no page of ours ever makes."""
    return Problem(414, "Address too long", "The address of this page is longer than any we make.")


def unreadable(what: str) -> Problem:
    """A filter, cursor or form that cannot be read; `what` names what is wrong."""
    return Problem(422, "Cannot read this", what, "Correct it, or start from all jobs.")


def too_slow(seconds: float) -> Problem:
    """A statement of the page ran into its timeout."""
    return Problem(
        503,
        "Took too long",
        f"The database did not answer within {seconds:g} s, so this page stopped asking.",
        "Narrow the filter, to one state or to created:<1d, or try again. OPSJOBS_PAGE_TIMEOUT_SECONDS sets the limit.",
    )


def database_away() -> Problem:
    """Postgres cannot be reached, or the host's pool has no connection left."""
    return Problem(
        503,
        "No database",
        "The database that records the jobs did not answer.",
        "Jobs in hand go on; their ends are recorded when it is back. Try again.",
    )


def schema_behind(says: str) -> Problem:
    """The schema is missing or older than this code."""
    return Problem(
        503, "Schema behind", says, "Whoever deploys the application runs:", "flask db upgrade"
    )
