"""The guide *Escalation*: its policies run, against a real mail server and a real web server, and its
commands print what it shows.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email import message_from_string
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import policy
from flask_opsjobs.escalations import transitions
from flask_opsjobs.escalations.facts import MEANINGS, make_test_facts
from flask_opsjobs.escalations.lifecycle import STATES
from tests.support.escalating import Acting, HideSecret
from tests.support.guides import is_shown
from tests.support.sources import ROOT

GUIDE = (ROOT / "docs/escalation.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


def policies() -> list[type]:
    """The class in each block of Python, in order."""
    made = []
    for language, code in _BLOCK.findall(GUIDE):
        if language == "python":
            names: dict[str, Any] = {"open_ticket": lambda **_ticket: 7}
            exec(compile(code, "docs/escalation.md", "exec"), names)
            made.append(names["HostEscalation"])
    return made


EXAMPLE, MAIL, WEBHOOK = policies()


@pytest.fixture
def make_shop(make_app: Callable[..., Flask]) -> Callable[..., Flask]:
    """Makes a host that needs no database."""
    return lambda **config: make_app(
        display=HideSecret(), SQLALCHEMY_DATABASE_URI=NOWHERE, **config
    )


@pytest.mark.processes
def test_the_example_is_a_policy(make_shop: Callable[..., Flask]) -> None:
    shop = make_shop(escalation=EXAMPLE())
    assert policy.find_policy_fault(EXAMPLE(), policy.EscalationPolicy) is None
    done = shop.test_cli_runner().invoke(args=["opsjobs", "escalate", "--test"])
    assert is_shown("docs/escalation.md", "flask opsjobs escalate --test", done.output)


@pytest.mark.processes
def test_the_mail_arrives(make_shop: Callable[..., Flask]) -> None:
    with _mail_server() as (address, mails):
        shop = make_shop(
            escalation=MAIL(),
            OPS_MAIL_FROM="shop@example.com",
            OPS_MAIL_TO="on-call@example.com",
            OPS_MAIL_SERVER=address,
            OPSJOBS_ENVIRONMENT="production",
        )
        done = shop.test_cli_runner().invoke(args=["opsjobs", "escalate", "--test"])
    assert (done.exit_code, done.output) == (0, "invoked: reference mail to on-call@example.com\n")
    (text,) = mails
    mail = message_from_string(text)
    assert mail["Subject"] == "[production] opened: Test of the escalation: nothing is wrong"
    assert mail["Message-ID"].startswith("<test.")
    assert "escalate --test" in mail.get_payload()


@pytest.mark.processes
@pytest.mark.parametrize("status", [200, 503])
def test_the_webhook_is_called(make_shop: Callable[..., Flask], status: int) -> None:
    with _web_server(status) as (url, requests):
        shop = make_shop(escalation=WEBHOOK(), OPS_WEBHOOK_URL=url)
        done = shop.test_cli_runner().invoke(args=["opsjobs", "escalate", "--test"])
    if status == 200:
        assert (done.exit_code, done.output) == (0, "invoked: reference INC-1\n")
    else:
        assert (done.exit_code, done.output[:32]) == (1, "failed: HTTPError: HTTP Error 50")
    ((key, facts),) = requests
    assert key == facts["key"]
    assert facts["is_test"] is True
    assert facts.keys() == MEANINGS.keys()


@pytest.mark.processes
def test_the_commands_print_what_the_guide_shows(
    make_app: Callable[..., Flask], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    acting = Acting(tmp_path)
    monkeypatch.setattr(acting, "escalate", lambda _facts: "ticket 7")
    shop = make_app(escalation=acting)
    commands = re.findall(r"^\$ flask (.+)\n((?:(?![$`]).+\n)*)", GUIDE, re.M)
    assert len(commands) == 2
    for command, printed in commands:
        if "install" in command:  # needs a folder of migrations: tests/install/test_plan.py
            assert "--escalation" in command
            continue
        done = shop.test_cli_runner().invoke(args=shlex.split(command))
        assert (done.exit_code, done.output) == (0, printed)


@pytest.mark.processes
def test_the_guide_says_what_the_code_does(make_app: Callable[..., Flask]) -> None:
    text = " ".join(GUIDE.split())
    assert f"**{transitions.CALL_SECONDS} seconds**" in text
    waits = [transitions.backoff_seconds(attempt) for attempt in range(1, 5)]
    assert waits == [10, 30, 120, 600]
    assert "after 10 s, 30 s, 2 min and 10 min" in text
    assert transitions.MOST_ATTEMPTS == 5
    assert [state for state in STATES if f"| `{state}` |" not in GUIDE] == []
    settings = make_app().extensions["opsjobs"].settings
    assert make_test_facts(settings, datetime.now(UTC)).keys() == MEANINGS.keys()


# --- servers


@contextmanager
def _mail_server() -> Iterator[tuple[tuple[str, int], list[str]]]:
    """A server of SMTP: its address, and the mails that it gets."""
    mails: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_take_mail, args=(server, mails), daemon=True)
        thread.start()
        yield server.getsockname(), mails
        thread.join(10)


def _take_mail(server: socket.socket, mails: list[str]) -> None:
    """Speak SMTP (RFC 5321) with one client."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 mail.test ESMTP\r\n")
        for line in lines:
            verb = line.split()[0].upper()
            if verb == b"DATA":
                connection.sendall(b"354 go on\r\n")
                body = iter(lines.readline, b".\r\n")
                mails.append("".join(each.decode() for each in body))
            connection.sendall(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")
            if verb == b"QUIT":
                return


@contextmanager
def _web_server(status: int) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A web server that answers with this status: its address, and what it gets."""
    requests: list[tuple[str, Any]] = []

    class Pager(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.headers["Idempotency-Key"], json.loads(body)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b'{"reference": "INC-1"}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Pager) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", requests
        server.shutdown()
