from __future__ import annotations

import logging
import mmap
import os
import struct
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.jobs.perform.log_tail import Capture, Ring
from tests.support.jobs import make_ring

lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\0")), max_size=60)


def expected(texts: list[str], size: int) -> list[str]:
    """The newest lines of those that fit whole."""
    kept: list[str] = []
    room = size
    for text in reversed(texts):
        room -= len(text.encode()) + 1
        if room < 0:
            break
        kept.insert(0, text)
    return kept


@given(lines, st.integers(40, 300))
def test_the_newest_lines_that_fit_are_kept(texts: list[str], size: int) -> None:
    texts = [text.encode()[: size // 16].decode(errors="ignore") for text in texts]
    ring = make_ring(size)
    for text in texts:
        ring.write(text.encode())
    found = ring.read()
    wanted = expected(texts, size)
    # At the edge the oldest whole line may be left out: its first byte cannot be told from a middle.
    assert found in {"\n".join(wanted), "\n".join(wanted[1:])}


@given(lines, st.integers(0, 60), st.integers(40, 200))
def test_a_torn_write_costs_its_line_alone(texts: list[str], torn: int, size: int) -> None:
    """The writer is killed after any byte of a line: what was whole and not overwritten is read."""
    texts = [text.encode()[: size // 16].decode(errors="ignore") for text in texts]
    buffer = bytearray(Ring.HEAD_BYTES + size)
    ring = Ring(memoryview(buffer))
    for text in texts:
        ring.write(text.encode())
    before = ring.read().split("\n")
    done = struct.unpack_from("<Q", buffer, 8)[0]
    half = b"\xff" * min(torn, size // 2)
    struct.pack_into("<Q", buffer, 0, done + len(half))
    for offset in range(len(half)):
        buffer[Ring.HEAD_BYTES + (done + offset) % size] = 0xFF
    after = ring.read().split("\n")
    assert after == [""] or after == before[len(before) - len(after) :]
    assert sum(len(one.encode()) + 1 for one in before) - len(half) - size // 8 <= sum(
        len(one.encode()) + 1 for one in after
    )


@given(st.binary(min_size=16, max_size=200))
def test_whatever_lies_in_the_buffer_reading_never_raises(raw: bytes) -> None:
    assert isinstance(Ring(memoryview(bytearray(raw))).read(), str)


def test_a_long_line_keeps_its_beginning() -> None:
    ring = make_ring(100)
    ring.write(b"first")
    ring.write(b"x" * 1_000)
    assert ring.read() == "first\n" + "x" * 46 + "…"


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_ring_too_small_for_lines_stays_quiet(size: int) -> None:
    ring = make_ring(size)
    ring.write(b"word")
    assert ring.read() == ""
    with pytest.raises(ValueError, match="at least 16 bytes"):
        Ring(memoryview(bytearray(15)))


def test_clear_forgets() -> None:
    ring = make_ring()
    ring.write(b"word")
    ring.clear()
    assert ring.read() == ""
    ring.write(b"next")
    assert ring.read() == "next"


def test_shared_memory_keeps_the_last_words_of_a_killed_process() -> None:
    ring = Ring(memoryview(mmap.mmap(-1, Ring.HEAD_BYTES + 1_000)))
    pid = os.fork()
    if pid == 0:
        try:
            for number in range(1_000):
                ring.write(b"line %d" % number)
            os.kill(os.getpid(), 9)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    said = ring.read().split("\n")
    assert said[-1] == "line 999"
    assert len(said) > 80


# --- the handler


@pytest.fixture
def log() -> Any:
    """A logger of its own, with its level put back."""
    log = logging.getLogger("tests.log_tail")
    before = log.level
    log.setLevel(logging.DEBUG)
    yield log
    log.setLevel(before)


def test_what_is_logged_in_the_block_is_kept(log: logging.Logger) -> None:
    ring = make_ring()
    log.warning("before")
    with Capture(ring):
        log.info("hello %s", "wörld")
        thread = threading.Thread(target=log.debug, args=("from a thread",))
        thread.start()
        thread.join()
    log.warning("after")
    first, second = ring.read().split("\n")
    clock, rest = first.split(" ", 1)
    assert rest == "INFO tests.log_tail: hello wörld"
    assert len(clock) == len("12:34:56.789")
    assert second.endswith("DEBUG tests.log_tail: from a thread")
    with Capture(None):
        log.warning("nowhere")


def test_the_handler_leaves_when_the_block_raises(log: logging.Logger) -> None:
    before = list(logging.getLogger().handlers)
    with pytest.raises(LookupError), Capture(make_ring()):
        raise LookupError
    assert logging.getLogger().handlers == before


def test_a_record_that_cannot_be_formatted_breaks_nothing(log: logging.Logger) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no")

    ring = make_ring()
    record = logging.LogRecord("x", logging.INFO, "f", 1, "%s", (Broken(),), None)
    wrong = logging.LogRecord("x", logging.INFO, "f", 1, "%d", ("a",), None)
    with Capture(ring):
        handler = logging.getLogger().handlers[-1]
        handler.handle(record)
        handler.handle(wrong)
        log.info("nul \0 and half \ud800 and 😀")
    said = ring.read().split("\n")
    assert said[:2] == ["a record of x could not be formatted"] * 2
    assert said[2].endswith("nul \ufffd and half ? and 😀")


def test_a_logged_exception_comes_without_its_input(log: logging.Logger) -> None:
    from pydantic import BaseModel

    class Account(BaseModel):
        number: int

    ring = make_ring()
    given = {"number": "s3cr3t-value"}
    with Capture(ring):
        try:
            Account.model_validate(given)
        except ValueError:
            log.exception("it went wrong")
    said = ring.read()
    assert "it went wrong\nTraceback (most recent call last)" in said
    assert "1 error for Account: number int_parsing" in said
    assert "s3cr3t-value" not in said
