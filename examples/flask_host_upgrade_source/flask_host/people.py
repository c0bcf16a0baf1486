"""Lists who may sign in. A real host has a table; the demo has three people, and shows their passwords."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from flask_login import UserMixin


@dataclass(frozen=True)
class Person(UserMixin):
    name: str
    password: str
    role: str
    may: str

    def get_id(self) -> str:
        """The name that the session stores, and that OpsJobs stores in the audit."""
        return self.name


_ALL = (
    Person("viewer", "look", "viewer", "sees jobs, not their arguments and errors"),
    Person("ops-demo", "operate", "operator", "sees everything and acts on jobs, but deletes none"),
    Person("admin", "rule", "admin", "may do anything"),
)
PEOPLE = {person.name: person for person in _ALL}


def with_password(name: str, password: str) -> Person | None:
    """The person with this name; None when the name or the password is wrong."""
    person = PEOPLE.get(name)
    if person is None or not hmac.compare_digest(person.password.encode(), password.encode()):
        return None
    return person
