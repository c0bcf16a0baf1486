"""What is wrong with Postgres itself is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_opsjobs.doctor import postgres
from flask_opsjobs.install import database
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench
from tests.support.waiting import wait_until


@shows("postgres.version")
def test_an_old_version(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("postgres.version").state == "ok"
    monkeypatch.setattr(database, "OLDEST_POSTGRES", 990_000)
    found = ask("postgres.version")
    assert (found.state, "flask_opsjobs needs 99 or newer" in found.sentence) == ("error", True)


@shows("postgres.connections")
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


@shows("postgres.long_transaction")
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


@shows("postgres.vacuum")
def test_many_dead_rows(ask: Ask, bench: Bench) -> None:
    """Nobody vacuums the servers of tests."""
    execute, queue = bench.connection.execute, "SELECT now(), 'default' FROM generate_series(1, {})"
    execute("VACUUM opsjobs.job_count_deltas")

    def die(number: int) -> None:
        execute(f"INSERT INTO opsjobs.job_count_deltas (at, queue) {queue.format(number)}")
        execute("DELETE FROM opsjobs.job_count_deltas")
        execute("SELECT pg_stat_force_next_flush()")

    die(90_000)
    wait_until(lambda: bench.row(_DEAD)["dead"] >= 90_000)
    assert ask("postgres.vacuum").state == "ok"
    die(10_001)
    wait_until(lambda: bench.row(_DEAD)["dead"] > 100_000)
    found = ask("postgres.vacuum")
    assert (found.state, "The table job_count_deltas has 10" in found.sentence) == ("warning", True)
    execute("VACUUM opsjobs.job_count_deltas")


@shows("postgres.vacuum")
def test_rows_that_are_not_frozen(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test makes a billion transactions."""
    assert ask("postgres.vacuum").state == "ok"
    monkeypatch.setattr(postgres, "_OLD_TRANSACTIONS", 0)
    found = ask("postgres.vacuum")
    assert (found.run, "transactions old" in found.sentence) == (
        "vacuumdb --freeze --analyze",
        True,
    )


_DEAD = "SELECT n_dead_tup AS dead FROM pg_stat_user_tables WHERE relname = 'job_count_deltas'"


@shows("postgres.reachable")
def test_a_server_that_is_away(make_well: MakeApp, ask: Ask, tmp_path: Path) -> None:
    """What to run says where the URL leads, also when its query says so, and no password."""
    assert ask("postgres.reachable").state == "ok"
    place = f"host={tmp_path}&port=5433&user=shop&password=s3cret"
    for url, run in (
        ("nobody:s3cret@127.0.0.1:1/nothing", "-h 127.0.0.1 -p 1 -U nobody -d nothing"),
        (f"/nothing?{place}&connect_timeout=2", f"-h {tmp_path} -p 5433 -U shop -d nothing"),
        (
            f"me:s3cret@/nothing?host={tmp_path},127.0.0.1&port=1,2",
            f"-h {tmp_path},127.0.0.1 -p 1,2 -U me -d nothing",
        ),
    ):
        app = make_well(SQLALCHEMY_DATABASE_URI=f"postgresql+psycopg://{url}")
        found = ask("postgres.reachable", app)
        assert (found.state, found.run) == ("error", f"pg_isready {run}")
        assert "s3cret" not in f"{found}"
