"""What our loggers say stands on one line, whoever wrote the names in it."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from flask_opsjobs.core import log
from flask_opsjobs.core.db import connect_apart
from tests.support import sources
from tests.support.policies import AllowAll

FORGED = "x\n2026-11-25 02:14:07 INFO flask_opsjobs.audit: audit head 7:abc\r\x1b[2K\x1b[31m\u2028\x9b\u202e"
_OURS = re.compile(r"""getLogger\(["'](flask_opsjobs[\w.]*)["']\)""")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """A log as a host keeps it in a file, in a process in which no app has joined yet."""
    for name in log.LOGGERS:
        logging.getLogger(name).filters.clear()
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    log.keep_on_one_line()


class _Denies(AllowAll):
    """Somebody with an odd name, who may do nothing."""

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return False


@pytest.mark.parametrize("method", ["get", "post"])
def test_the_path_of_a_denied_request_is_no_line_of_its_own(
    method: str, make_app: Callable[..., Flask], written: io.StringIO
) -> None:
    client = make_app(access=_Denies()).test_client()
    path = (
        "/ops/jobs/jobs/x%0a2026-11-25%20INFO%20flask_opsjobs.audit:%20audit%20head%207:abc%1b[2K"
    )
    rest = "/retry" if method == "post" else ""
    answer = getattr(client, method)(path + rest, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 403
    (line,) = written.getvalue().splitlines()
    assert line.startswith("WARNING flask_opsjobs: tester was denied job")
    assert r"/ops/jobs/jobs/x\n2026-11-25 INFO flask_opsjobs.audit: audit head 7:abc\x1b[2K" in line


@pytest.mark.parametrize("name", log.LOGGERS)
def test_each_of_our_loggers_writes_out_what_is_no_part_of_a_line(
    name: str, written: io.StringIO
) -> None:
    log.keep_on_one_line()
    ours = logging.getLogger(name)
    ours.error("%s did %d of %s at %.1f s", FORGED, 3, ValueError(FORGED), 1.5)
    ours.error("%(who)s did it", {"who": FORGED})
    ours.error(FORGED)
    text = written.getvalue()
    assert text.count("\n") == 3
    assert not set(text) & set("\r\x1b\u2028\x9b\u202e")
    assert r"x\n2026-11-25" in text
    assert "did 3 of x" in text
    assert "at 1.5 s" in text


def test_a_database_error_is_logged_without_the_row(
    written: io.StringIO, database_url: str
) -> None:
    log.keep_on_one_line()
    ours = logging.getLogger("flask_opsjobs.worker")
    engine = create_engine(database_url)
    with closing(connect_apart(engine)) as connection:
        refused = "INSERT INTO opsjobs.jobs (task, queue) VALUES ('s3cr3t-value', 'q')"
        with pytest.raises(psycopg.IntegrityError) as error:
            connection.execute(refused)
    engine.dispose()
    assert "Failing row contains" in str(error.value)
    ours.error("a statement failed", exc_info=error.value)
    ours.error("a statement failed: %s", error.value)
    told = written.getvalue()
    assert told.count('null value in column "lane" of relation "jobs"') == 2
    assert told.count("SQLSTATE 23502") == 2
    assert "Failing row" not in told
    assert "s3cr3t-value" not in told


def test_a_traceback_is_set_in_and_each_message_of_it_is_one_line(written: io.StringIO) -> None:
    log.keep_on_one_line()
    ours = logging.getLogger("flask_opsjobs")
    try:
        try:
            raise KeyError(FORGED)
        except KeyError as error:
            error.add_note(FORGED)
            raise ExceptionGroup(FORGED, [ValueError(FORGED), OSError(FORGED)]) from error
    except ExceptionGroup:
        ours.exception("it failed: %s", "as told")
    first, *rest = written.getvalue().removesuffix("\n").split("\n")
    assert first == "ERROR flask_opsjobs: it failed: as told"
    assert all(line.startswith("  ") for line in rest)
    assert not set("".join(rest)) & set("\r\x1b\u2028\x9b\u202e")
    assert any(line.strip().startswith('File "') for line in rest), "frames stay readable"
    assert any("direct cause of the following exception" in line for line in rest)
    # The note is the one text that Python itself breaks into lines.
    assert len([line for line in rest if "audit head 7" in line]) == 5


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    record = logging.LogRecord("flask_opsjobs", logging.INFO, "x", 1, "%s|%s", (text, 7), None)
    assert log._OnOneLine().filter(record)
    assert len(record.getMessage().splitlines()) == 1


def test_every_logger_of_the_package_is_one_of_these() -> None:
    texts = (path.read_text() for path in (sources.ROOT / "flask_opsjobs").rglob("*.py"))
    used = {name for text in texts for name in _OURS.findall(text)}
    assert used == set(log.LOGGERS)
