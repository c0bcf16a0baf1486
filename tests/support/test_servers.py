"""Servers come back as promised, and waiting says what it waited for."""

from __future__ import annotations

from itertools import count

import pytest
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from tests.support.postgres import Postgres
from tests.support.processes import Children
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until


@pytest.mark.chaos
def test_a_killed_postgres_keeps_what_was_committed(
    own_postgres: Postgres, own_database_url: str
) -> None:
    engine = create_engine(own_database_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept AS SELECT 7 AS number"))
    own_postgres.kill()
    own_postgres.start()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT number FROM kept")) == 7


@pytest.mark.chaos
def test_a_killed_valkey_comes_back_empty_at_its_url(own_valkey: Valkey) -> None:
    url = own_valkey.url
    with own_valkey.client() as client:
        client.set("kept", "no")
    own_valkey.kill()
    own_valkey.start()
    assert own_valkey.url == url
    with own_valkey.client() as client:
        assert client.get("kept") is None


@pytest.mark.chaos
def test_a_frozen_valkey_does_not_answer_until_thawed(own_valkey: Valkey) -> None:
    with Redis.from_url(own_valkey.url, socket_timeout=0.1, retry=None) as client:
        client.ping()
        own_valkey.freeze()
        with pytest.raises(RedisError):
            client.ping()
        own_valkey.thaw()
        assert client.ping()


def test_waiting_returns_what_came_true() -> None:
    numbers = count()
    assert wait_until(lambda: next(numbers) or None) == 1


def test_waiting_in_vain_says_for_what() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for a miracle; last answer: False"):
        wait_until(lambda: False, 0.05, what="a miracle")


def test_a_child_that_ends_early_shows_its_log(children: Children) -> None:
    child = children.python("-c", "print('only this')")
    with pytest.raises(AssertionError, match="only this"):
        child.wait_for("something else")
    assert child.exit_code == 0
