"""Decides who may see and change what at /ops/jobs, by the role of the person who is signed in."""

from __future__ import annotations

from flask import url_for
from flask_login import current_user

from . import people


class HostAccess:
    """Lets viewers open pages, operators also see payload and act, admins also delete."""

    def current_actor(self) -> str | None:
        """The name of the person who is signed in; None when nobody is."""
        return current_user.get_id() if current_user.is_authenticated else None

    def sign_in_url(self, next: str) -> str:
        """The page on which a person signs in, and from which `next` comes back."""
        return url_for("shop.sign_in", next=next)

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        """Whether the role of `actor` has `permission`. This shop treats all subjects the same."""
        person = people.PEOPLE.get(actor)
        if person is None:
            return False
        if person.role == "admin":
            return True
        if person.role == "operator":
            return not permission.endswith(".delete")
        return permission.endswith(".view") and permission != "payload.view"
