"""Decides who may see and change what at /ops/jobs: a place to start, and no policy for production.

`flask opsjobs install` wrote this file from starter 2; edit it. A later `install` says what has changed in
the starter since, and leaves this file alone.
"""

from __future__ import annotations


class HostAccess:
    """Denies everyone until you change it. An exception in here denies too."""

    def current_actor(self) -> str | None:
        """A stable name of the person who is signed in, such as a login; None when nobody is.

        The audit stores the name with each action of this person. With Flask-Login:

            from flask_login import current_user

            return current_user.get_id() if current_user.is_authenticated else None
        """
        return None

    def sign_in_url(self, next: str) -> str | None:
        """Where a person who is not signed in signs in and then comes back to the path `next`; None to
        answer 403 instead. With Flask-Login, where a person who is signed in may be no operator:

            return None if current_user.is_authenticated else url_for("login", next=next)
        """
        return None

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether `actor` has `permission`: `jobs.view` opens pages, `payload.view` shows arguments,
        outputs and errors, `job.retry` and other `<domain>.<action>` change something.

        `subject` is the job, queue or other thing, such as `job/42`. With None: may `actor` do this at all,
        as for a list? For example:

            if permission == "payload.view":
                return actor in SUPPORT
            if permission.endswith(".view"):
                return actor in STAFF
            return actor in OPERATORS
        """
        return False
