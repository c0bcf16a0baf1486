"""Frames of a stored traceback: the error's own, with those of the host's code marked."""

from __future__ import annotations

from flask_opsjobs.failures.frames import read_frames, say_where
from flask_opsjobs.jobs.perform.describe_error import traceback_of

STORED = """Traceback (most recent call last):
  File "/srv/shop/db.py", line 1, in connect
    raise ConnectionError
ConnectionError

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/tasks/webhooks.py", line 61, in deliver_webhook
    headers = sign(body, receiver)
              ^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/signing.py", line 24, in <lambda>
  File "/usr/lib/python3.11/collections/__init__.py", line 1014, in __getitem__
    raise KeyError(key)
KeyError: 'File "x", line 1, in y'
"""


def test_the_frames_of_the_error_itself() -> None:
    frames = read_frames(STORED, "shop")
    assert [(frame.line, frame.function, frame.source, frame.is_host) for frame in frames] == [
        (61, "deliver_webhook", "headers = sign(body, receiver)", True),
        (24, "<lambda>", None, True),
        (1014, "__getitem__", "raise KeyError(key)", False),
    ]
    assert say_where(frames) == "<lambda> in srv/shop/signing.py"
    deep = read_frames(STORED.replace("/srv/shop/", "/home/ada/releases/41/shop/webhooks/"), "shop")
    assert say_where(deep) == "<lambda> in shop/webhooks/signing.py"


def test_nothing_to_read() -> None:
    assert read_frames(None, "shop") == []
    assert read_frames("no traceback", "shop") == []
    assert say_where([]) is None
    assert say_where(read_frames(STORED.replace("/srv", "/usr/lib/python3.11"), "shop")) is None


def test_what_describe_error_writes_is_read() -> None:
    try:
        int("x")
    except ValueError as error:
        (frame,) = read_frames(traceback_of(error), "tests")
    assert (frame.path, frame.source, frame.is_host) == (__file__, 'int("x")', True)
