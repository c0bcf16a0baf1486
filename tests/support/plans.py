"""Makes large databases for tests of plans, and reads what Postgres did for a statement, as plan nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import Reading
from flask_opsjobs.web.app.host import reading
from tests.support.database import Databases
from tests.support.policies import AllowAll, ShowAll

Nodes = list[dict[str, Any]]


def explain(connection: Connection, statement: str, parameters: Any) -> Nodes:
    """The plan of one of our statements, by name; whatever it wrote is rolled back."""
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        return _explain(cursor, sql.load(statement), parameters)


def explain_prepared(connection: Connection, statement: str, parameters: dict[str, Any]) -> Nodes:
    """The plan that Postgres makes without looking at the parameters, as it may after five executions."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", sql.load(statement))))
    text = re.sub(
        r"%\((\w+)\)s", lambda found: f"${names.index(found[1]) + 1}", sql.load(statement)
    )
    with connection.transaction(force_rollback=True), psycopg.ClientCursor(connection) as cursor:
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute("PREPARE prepared AS " + text.replace("%%", "%"))
        try:
            values = [parameters[name] for name in names]
            return _explain(cursor, f"EXECUTE prepared ({', '.join(['%s'] * len(names))})", values)
        finally:
            cursor.execute("DEALLOCATE prepared")


class Plans:
    """Every statement of a reading that is about these tables, each with the nodes of its plan."""

    about = "opsjobs.jobs"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seen: list[tuple[str, list[dict[str, Any]]]] = []

    def __enter__(self) -> Plans:
        event.listen(self._engine, "before_cursor_execute", self._explain)
        return self

    def __exit__(self, *error: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._explain)

    def __repr__(self) -> str:
        """What a failed assertion prints: each plan's nodes, with what they read."""
        keys = ("Node Type", "Index Name", "Actual Rows", "Rows Removed by Filter", "Actual Loops")
        return "\n".join(
            " > ".join(" ".join(str(node[key]) for key in keys if key in node) for node in nodes)
            for _, nodes in self.seen
        )

    def _explain(
        self, _connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any
    ) -> None:
        if self.about in statement and not statement.startswith("EXPLAIN"):
            with cursor.connection.cursor() as other:
                self.seen.append((statement, _explain(other, statement, parameters)))

    @property
    def indexes(self) -> set[str]:
        """The indexes of ours in the plans."""
        names = {node.get("Index Name", "pg_") for _, nodes in self.seen for node in nodes}
        return {name for name in names if not name.startswith("pg_")}

    @property
    def walked(self) -> set[str]:
        """Those of them that were read from: a part of a plan may have had nothing to do."""
        nodes = (node for _, nodes in self.seen for node in nodes if node["Actual Loops"])
        names = {node.get("Index Name", "pg_") for node in nodes}
        return {name for name in names if not name.startswith("pg_")}

    @property
    def kinds(self) -> set[str]:
        """The kinds of nodes."""
        return {node["Node Type"] for _, nodes in self.seen for node in nodes}

    @property
    def read_whole(self) -> set[str]:
        """The tables that were read from the beginning to the end."""
        return {
            node["Relation Name"]
            for _, nodes in self.seen
            for node in nodes
            if node["Node Type"] == "Seq Scan"
        }

    @property
    def most_rows(self) -> int:
        """The most rows that any scan read, those that it threw away included."""
        return max(
            int(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            )
            for _, nodes in self.seen
            for node in nodes
            if "Scan" in node["Node Type"]
        )


_Plans = TypeVar("_Plans", bound=Plans)
# Foreign keys are not looked up for each row: a sixth of the time. Who is no superuser may not choose so.
_WITHOUT_CHECKS = text(
    "SELECT set_config('session_replication_role', 'replica', true)"
    " WHERE current_setting('is_superuser') = 'on'"
)


@contextmanager
def app_on(
    databases: Databases, fill: Callable[[Session], object], **config: str
) -> Iterator[Flask]:
    """A host on a database of its own, which `fill` has filled. Dropped at the end."""
    url = databases.clone()
    app = Flask("host")
    app.config.update(TESTING=True, SECRET_KEY="x", SQLALCHEMY_DATABASE_URI=url, **config)
    SQLAlchemy(app)
    OpsJobs(app, access=AllowAll(), display=ShowAll())
    host = app.extensions["opsjobs"]
    with Session(host.engine) as session:
        session.execute(_WITHOUT_CHECKS)
        fill(session)
        session.commit()
    yield app
    host.spare.close()
    host.pages.dispose()
    host.engine.dispose()
    databases.drop(url)


@contextmanager
def reading_with(app: Flask, kind: type[_Plans]) -> Iterator[tuple[_Plans, Reading]]:
    """A reading as pages have it, with its plans."""
    with (
        app.test_request_context(),
        reading() as read,
        kind(app.extensions["opsjobs"].pages) as plans,
    ):
        yield plans, read


def _explain(cursor: Any, statement: str, parameters: Any) -> Nodes:
    (found,) = cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, parameters).fetchone()
    plan = json.loads(found) if isinstance(found, str) else found
    return list(_nodes(plan[0]["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
