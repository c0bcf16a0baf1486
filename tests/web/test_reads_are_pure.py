"""Our GETs write nothing, neither to Postgres nor to Redis, also when the host writes its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from flask_opsjobs.core.db import Base
from flask_opsjobs.engine.redis.connections import READS
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from tests.support.policies import AllowAll
from tests.web.every import good, reads


def _read_everything(client: FlaskClient, jobs: dict[str, Job]) -> None:
    for url, path in reads(jobs):
        assert client.get(path).status_code == good(url), path


def _fingerprint(session: Session) -> list[Any]:
    """What would change if anything did: every row's versions and the transactions that wrote it."""
    return [
        session.execute(
            text(f"SELECT count(*), sum(xmin::text::bigint), sum(hashtext(t::text)) FROM {table} t")
        ).one()
        for table in Base.metadata.tables
    ]


def test_every_get_works_where_nothing_can_be_written(
    make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    options = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    read_only = make_app(SQLALCHEMY_ENGINE_OPTIONS=options)
    _read_everything(read_only.test_client(), jobs)


def test_every_get_leaves_every_row_as_it_was(
    client: FlaskClient, session: Session, jobs: dict[str, Job]
) -> None:
    before = _fingerprint(session)
    session.rollback()
    _read_everything(client, jobs)
    assert _fingerprint(session) == before


def test_every_statement_of_a_page_runs_in_a_read_only_transaction_with_a_timeout(
    client: FlaskClient, host: Host, jobs: dict[str, Job]
) -> None:
    client.get("/ops/jobs")  # the schema's version is asked for once
    seen: list[tuple[str, str]] = []

    @event.listens_for(host.pages, "after_cursor_execute")
    def note(connection: Any, cursor: Any, *_: Any) -> None:
        with cursor.connection.cursor() as other:
            shown = (
                "SELECT current_setting('transaction_read_only'), "
                "current_setting('statement_timeout')"
            )
            seen.append(other.execute(shown).fetchone())

    _read_everything(client, jobs)
    # What surrounds a page has half a second, and is asked for again when it was read some seconds ago. A
    # check of the doctor has 2 s.
    needed = {("on", "5s"), ("on", "1800ms")}
    assert needed <= set(seen) <= {*needed, ("on", "500ms")}


def test_a_page_asks_redis_for_reads_only(
    client: FlaskClient, redis_client: Redis, jobs: dict[str, Job]
) -> None:
    def asked() -> dict[str, int]:
        stats: dict[str, Any] = redis_client.info("commandstats")
        return {name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items()}

    before = asked()
    _read_everything(client, jobs)
    sent = {name for name, calls in asked().items() if calls > before.get(name, 0)}
    greetings = {"auth", "select", "hello", "client|setinfo"}  # of each new connection
    # Redis counts `PUBSUB CHANNELS` as `pubsub|channels`; each of its three subcommands only reads.
    assert {name.upper().partition("|")[0] for name in sent - greetings} <= READS
    assert "llen" in sent  # the explanation of a due job asks
    assert redis_client.keys("*") == []


class _HostThatWrites(AllowAll):
    """Notes each request in a table of the host's, through the host's own session."""

    def __init__(self) -> None:
        self.app: Flask | None = None

    def current_actor(self) -> str | None:
        assert self.app is not None
        db = self.app.extensions["sqlalchemy"]
        db.session.execute(text("INSERT INTO visits DEFAULT VALUES"))
        db.session.commit()
        db.session.execute(text("INSERT INTO visits DEFAULT VALUES"))  # and leaves this one open
        return self.actor


def test_a_host_goes_on_writing_its_own(
    make_app: Callable[..., Flask], session: Session, jobs: dict[str, Job]
) -> None:
    session.execute(text("CREATE TABLE visits (at timestamptz DEFAULT now())"))
    session.commit()
    writes = _HostThatWrites()
    writes.app = make_app(access=writes)
    before = _fingerprint(session)
    session.rollback()
    client = writes.app.test_client()
    _read_everything(client, jobs)
    # The doctor asks once more, for somebody who is not signed in.
    asked = sum(1 for _ in reads(jobs)) + 1
    assert session.execute(text("SELECT count(*) FROM visits")).scalar_one() == asked
    assert _fingerprint(session) == before
