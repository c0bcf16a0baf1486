"""What is wrong with Postgres itself is found."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest

from flask_opsjobs.doctor import postgres
from tests.doctor.conftest import Ask
from tests.support.engine import Bench
from tests.support.waiting import wait_until


def test_an_old_version(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("postgres.version").state == "ok"
    monkeypatch.setattr(postgres, "_OLDEST_VERSION", 990_000)
    assert ask("postgres.version").state == "error"


@pytest.mark.parametrize(
    ("ahead", "state"), [(1.5, "ok"), (5, "warning"), (-5, "warning"), (60, "error")]
)
def test_a_clock_that_is_off(
    ahead: float, state: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's, against those of Postgres and of Redis."""

    class _Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=ahead)

    monkeypatch.setattr(postgres, "datetime", _Shifted)
    assert ask("postgres.clock").state == state


def test_too_few_connections(ask: Ask, bench: Bench) -> None:
    database = bench.connection.info.dbname
    assert ask("postgres.connections").state == "ok"
    bench.connection.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 5")
    found = ask("postgres.connections")
    assert (
        found.state,
        "may still be opened, and all processes together need" in found.sentence,
    ) == (
        "warning",
        True,
    )


def test_a_long_transaction(ask: Ask, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench.connection.transaction():
        bench.connection.execute("SELECT 1")
        assert ask("postgres.long_transaction").state == "ok"
        monkeypatch.setattr(postgres, "_LONG_SECONDS", 0.0)
        found = ask("postgres.long_transaction")
    assert (found.state, f"pid {bench.connection.info.backend_pid}" in found.evidence) == (
        "warning",
        True,
    )


def test_many_dead_rows(ask: Ask, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = bench.connection.execute
    # Other tests have used this database.
    execute("VACUUM")
    assert ask("postgres.vacuum").state == "ok"
    for _ in range(3):
        execute("UPDATE opsjobs.workers SET pid = pid + 1")
    execute("SELECT pg_stat_force_next_flush()")
    monkeypatch.setattr(postgres, "_MANY_DEAD", 1)
    wait_until(lambda: ask("postgres.vacuum").state == "warning")
    assert "dead rows" in ask("postgres.vacuum").sentence
