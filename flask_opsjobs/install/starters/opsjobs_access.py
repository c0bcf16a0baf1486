"""Who may see what at /ops/jobs, and do what there. Started by `flask opsjobs install`, now yours."""

from __future__ import annotations


class HostAccess:
    """Denies everyone, until you say who may do what. An exception in here denies too."""

    def current_actor(self) -> str | None:
        """A stable name of whoever is signed in, such as a login; None when nobody is.

        The name is kept with whatever this person does. With Flask-Login:

            from flask_login import current_user

            return current_user.get_id() if current_user.is_authenticated else None
        """
        return None

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether `actor` may: `jobs.view` to open pages, `payload.view` to see arguments,
        outputs and errors, `job.retry` and other `<domain>.<action>` to change something.

        `subject` is what it is about, such as `job/42`; None asks in general. For example:

            if permission == "payload.view":
                return actor in SUPPORT
            if permission.endswith(".view"):
                return actor in STAFF
            return actor in OPERATORS
        """
        return False
