"""Tells systemd that a worker is ready, stops, or still turns. Without systemd it does nothing."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from math import inf


class Systemd:
    """What `Type=notify` and `WatchdogSec=` of a unit file ask for, as sd_notify(3) describes it.

    >>> Systemd({}).tell_ready()
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        limit = environ.get("WATCHDOG_USEC", "") if is_ours else ""
        # How often to feed: a third of the limit, so that one late turn does not end the worker.
        self.feed_seconds = (int(limit) / 3e6 if limit.isdecimal() else 0) or inf
        self._fed_at = -inf

    def tell_ready(self) -> None:
        """Say that the worker performs jobs."""
        self._send("READY=1")

    def tell_stopping(self) -> None:
        """Say that the worker stops."""
        self._send("STOPPING=1")

    def tell_reloading(self) -> None:
        """Say that the worker finishes its jobs and then starts anew."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def feed(self) -> None:
        """Say that the main loop still turns. Call it in each turn."""
        if time.monotonic() - self._fed_at < self.feed_seconds:
            return
        self._fed_at = time.monotonic()
        self._send("WATCHDOG=1")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(words.encode(), address)
