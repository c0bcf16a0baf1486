"""What differs from what the migrations make is found: on a real schema, changed as people change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import psycopg
import pytest
from flask_migrate import Migrate

from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench

pytestmark = pytest.mark.lane

Execute = Callable[[str], object]


@pytest.fixture
def execute(bench: Bench) -> Execute:
    """Runs a statement as the owner of the schema."""
    return bench.connection.execute


@shows("schema.objects")
def test_objects_that_differ(execute: Execute, ask: Ask) -> None:
    # A table of the host's in our schema, and a longer statistics target, change nothing of ours.
    execute("CREATE TABLE opsjobs.of_the_host (id int CHECK (id > 0))")
    execute("ALTER TABLE opsjobs.jobs ALTER COLUMN queue SET STATISTICS 500")
    assert ask("schema.objects").state == "ok"
    execute("ALTER TABLE opsjobs.workers DROP CONSTRAINT workers_state_check")
    execute("ALTER TABLE opsjobs.audit_events DISABLE TRIGGER audit_events_append_only")
    execute("ALTER TABLE opsjobs.queues ADD COLUMN note text")
    found = ask("schema.objects")
    assert (found.state, found.sentence) == (
        "error",
        "3 objects of the schema differ from what its migrations make.",
    )
    assert found.evidence == (
        "The column queues.note was added; the constraint workers.workers_state_check is missing; "
        "the trigger audit_events.audit_events_append_only differs."
    )


@shows("schema.indexes")
def test_indexes_that_are_missing_invalid_or_foreign(execute: Execute, ask: Ask) -> None:
    assert ask("schema.indexes").state == "ok"
    execute("CREATE INDEX of_the_host ON opsjobs.jobs (task, priority)")
    found = ask("schema.indexes")
    assert (found.state, found.evidence.startswith("jobs.of_the_host. ")) == ("warning", True)
    execute("DROP INDEX opsjobs.workers_by_start")
    found = ask("schema.indexes")
    assert (found.state, found.sentence) == ("error", "1 index of ours is missing.")
    assert "CREATE INDEX CONCURRENTLY workers_by_start ON opsjobs.workers" in found.run
    execute(
        "INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)"
        " SELECT 'watch', 'p', now(), now(), 5 FROM generate_series(1, 2)"
    )
    # Its creation fails, and leaves an invalid index behind.
    with suppress(psycopg.errors.UniqueViolation):
        execute("CREATE UNIQUE INDEX CONCURRENTLY workers_by_start ON opsjobs.loop_runs (loop)")
    found = ask("schema.indexes")
    assert (found.state, found.sentence) == ("error", "1 index is invalid.")
    assert "REINDEX INDEX CONCURRENTLY opsjobs.workers_by_start" in found.run


@pytest.fixture
def role(execute: Execute, bench: Bench) -> Iterator[str]:
    """A role that may do all that the app does."""
    name = f"app_{bench.connection.info.dbname}"
    execute(f"CREATE ROLE {name}")
    execute(f"GRANT USAGE ON SCHEMA opsjobs TO {name}")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA opsjobs TO {name}")
    execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA opsjobs TO {name}")
    yield name
    execute(f"DROP OWNED BY {name}")
    execute(f"DROP ROLE {name}")


@pytest.mark.sessions
@shows("schema.rights")
def test_rights_that_the_role_of_the_app_lacks(
    execute: Execute, role: str, make_well: MakeApp, ask: Ask
) -> None:
    options = {"connect_args": {"options": f"-c role={role}"}}
    app = make_well(SQLALCHEMY_ENGINE_OPTIONS=options)
    # A right that the app does not need.
    execute(f"REVOKE DELETE ON opsjobs.audit_events FROM {role}")
    found = ask("schema.rights", app)
    assert found.state == "ok", found
    execute(f"REVOKE INSERT ON opsjobs.audit_events FROM {role}")
    found = ask("schema.rights", app)
    assert (found.state, found.evidence) == ("error", "INSERT ON opsjobs.audit_events.")


@shows("schema.version", "warning")
def test_a_schema_that_is_ahead(execute: Execute, ask: Ask) -> None:
    assert ask("schema.version").state == "ok"
    execute("INSERT INTO opsjobs.schema_version (version) VALUES (99)")
    found = ask("schema.version")
    assert (found.state, "this release of flask_opsjobs knows up to" in found.sentence) == (
        "warning",
        True,
    )


@shows("schema.revisions")
def test_migrations_that_are_not_applied_and_autogenerate(
    execute: Execute, make_well: MakeApp, ask: Ask
) -> None:
    app = make_well()
    assert ask("schema.revisions", app).sentence.startswith("This app has no Flask-Migrate")
    directory = "examples/flask_host/migrations"
    Migrate(app, app.extensions["sqlalchemy"], directory=directory)
    assert ask("schema.autogenerate", app).state == "ok"
    execute("CREATE TABLE alembic_version (version_num text PRIMARY KEY)")
    assert ask("schema.revisions", app).state == "skipped"
    with app.app_context():
        from flask_opsjobs.install import revisions

        found = revisions.find_revisions(app)
        *_, first = found.scripts.walk_revisions()
        newest = found.heads[0]
    execute(f"INSERT INTO alembic_version VALUES ('{newest}')")
    assert ask("schema.revisions", app).state == "ok"
    execute(f"UPDATE alembic_version SET version_num = '{first.revision}'")
    behind = ask("schema.revisions", app)
    assert (behind.state, behind.run) == ("warning", "flask db upgrade")


@shows("schema.autogenerate")
def test_autogenerate_that_would_drop_our_tables(
    make_well: MakeApp, ask: Ask, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "versions").mkdir()
    (folder / "alembic.ini").write_text("[alembic]\n")
    (folder / "script.py.mako").write_text("")
    (folder / "env.py").write_text("context.configure(connection=connection)\n")
    app = make_well()
    Migrate(app, app.extensions["sqlalchemy"], directory=str(folder))
    assert ask("schema.autogenerate", app).state == "ok"
    (folder / "env.py").write_text("context.configure(include_schemas=True)\n")
    found = ask("schema.autogenerate", app)
    assert found.state == "error"
    assert (
        "would drop the tables of opsjobs, since env.py says include_schemas=True" in found.sentence
    )
