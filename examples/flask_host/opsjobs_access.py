"""Who may see what at /ops/jobs, and do what there: by the role of who is signed in."""

from __future__ import annotations

from flask_login import current_user

from . import people


class HostAccess:
    """Viewers open pages, operators also see payloads and act, admins may delete too."""

    def current_actor(self) -> str | None:
        """The name of who is signed in."""
        return current_user.get_id() if current_user.is_authenticated else None

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether the role of `actor` holds `permission`; here no job is special."""
        person = people.PEOPLE.get(actor)
        if person is None:
            return False
        if person.role == "admin":
            return True
        if person.role == "operator":
            return not permission.endswith(".delete")
        return permission.endswith(".view") and permission != "payload.view"
