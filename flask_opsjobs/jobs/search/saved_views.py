"""Stores filters of lists under names, by page. Each person sees only their own views."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from ...errors import OpsJobsError
from ..models import SavedView

MOST_VIEWS = 50
_LONGEST_NAME = 60


class BadView(OpsJobsError):
    """A view cannot be saved; the message says why and what to do."""


@dataclass(frozen=True)
class View:
    """A saved view; `query` is the query string of its filter."""

    id: int
    name: str
    query: str


def list_views(session: Session, owner: str, page: str) -> Sequence[View]:
    """The views that one person has of a page, by name."""
    own = select(SavedView.id, SavedView.name, SavedView.query).where(*_own(owner, page))
    return [View(*row) for row in session.execute(own.order_by(SavedView.name).limit(MOST_VIEWS))]


def save_view(session: Session, owner: str, page: str, name: str, query: str) -> None:
    """Save a filter under a name; replaces the view of this page with the same name. The caller commits.

    Raises `BadView` for a bad name, and when the owner has 50 views of the page already. Holds an advisory
    lock per owner until the commit, so that two of their windows cannot both save the last view.
    """
    name = _clean(name)
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"opsjobs views {owner}", 0)))
    )
    own = select(SavedView).where(*_own(owner, page))
    found = session.scalars(own.where(SavedView.name == name)).one_or_none()
    if found is None:
        kept = session.scalars(select(func.count()).select_from(own.subquery())).one()
        if kept >= MOST_VIEWS:
            raise BadView(f"There are {MOST_VIEWS} views already. Delete one first.")
        found = SavedView(owner=owner, page=page, name=name, created_at=func.clock_timestamp())
        session.add(found)
    found.query = query


def delete_view(session: Session, owner: str, page: str, view_id: int) -> bool:
    """Delete a view of this person and page; False when there is none with that id. The caller commits."""
    own = delete(SavedView).where(*_own(owner, page), SavedView.id == view_id)
    return session.execute(own.returning(SavedView.id)).first() is not None


def _own(owner: str, page: str) -> tuple[ColumnElement[bool], ...]:
    return SavedView.owner == owner, SavedView.page == page


def _clean(name: str) -> str:
    """The name in one line. Raises `BadView` when it is empty or too long."""
    name = " ".join(
        re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", " ", name).split()
    )
    if not 1 <= len(name) <= _LONGEST_NAME:
        raise BadView(f"A view has a name of 1 to {_LONGEST_NAME} characters.")
    return name
