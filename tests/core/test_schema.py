"""Whether the database has a step of the schema, as code asks that runs on the schema before too."""

from __future__ import annotations

from flask_opsjobs.core.db import SCHEMA_VERSION, has_schema
from tests.support.engine import Bench


def test_it_is_asked_until_it_has_the_step(bench: Bench) -> None:
    next_one = SCHEMA_VERSION + 1
    assert has_schema(bench.connection, SCHEMA_VERSION)
    assert not has_schema(bench.connection, next_one)
    bench.connection.execute(
        "INSERT INTO opsjobs.schema_version (version) VALUES (%s)", (next_one,)
    )
    assert has_schema(bench.connection, next_one)
