"""An open page that polls, and what each poll costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import event
from werkzeug.test import TestResponse

from flask_opsjobs.host import Host


class OpenPage:
    """An open page that polls as the script does: it keeps the tag of each answer."""

    def __init__(self, client: FlaskClient, host: Host, path: str) -> None:
        self.client, self._host, self.path = client, host, path
        self.tag = client.get(path).headers["ETag"]
        self.statements = 0

    def poll(self, **headers: str) -> TestResponse:
        """The answer. `statements` is what it cost."""
        self.statements = 0
        with self._counting():
            answer = self.client.get(self.path, headers={"If-None-Match": self.tag, **headers})
        self.tag = answer.headers["ETag"]
        return answer

    @property
    def is_cheap(self) -> bool:
        """Whether a poll costs one statement."""
        return self.poll().status_code == 304 and self.statements == 1

    @contextmanager
    def _counting(self) -> Iterator[None]:
        def count(*_: Any) -> None:
            self.statements += 1

        event.listen(self._host.pages, "before_cursor_execute", count)
        yield
        event.remove(self._host.pages, "before_cursor_execute", count)
