"""Freezes this process in the middle of a transaction; child processes of tests import it."""

from __future__ import annotations

import os
import signal

from flask_opsjobs.core import db, sql


def freeze_before(statement: str) -> None:
    """Freeze this process once, before it sends one of our statements.

    From now on Postgres waits one second for such a transaction, not ten.
    """
    db._END_IF_FROZEN = "SET LOCAL idle_in_transaction_session_timeout = '1s'"
    load, pid = sql.load, os.getpid()
    frozen: list[int] = []

    def freeze_and_load(name: str, **variant: bool) -> str:
        if name == statement and os.getpid() == pid and not frozen:
            frozen.append(pid)
            # To this thread: it goes no further, also when the others stop a little later.
            signal.raise_signal(signal.SIGSTOP)
        return load(name, **variant)

    setattr(sql, "load", freeze_and_load)  # noqa: B010
