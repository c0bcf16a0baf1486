"""Tells one process from all others, also from a later one with the same pid, and whether it still runs."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of a machine. All but the pid are None where the system does not tell them.

    `boot_id` changes with each boot, and two containers of one machine see different processes in their
    `pid_namespace`. `started_at` is in clock ticks since the boot.
    """

    pid: int
    boot_id: str | None
    pid_namespace: str | None
    started_at: int | None

    @property
    def machine(self) -> tuple[str | None, str | None]:
        """The boot and the pid namespace in which it runs: processes with the same ones see each other."""
        return self.boot_id, self.pid_namespace

    def is_gone(self) -> bool | None:
        """Return whether the process has ended; None when that cannot be seen from here."""
        here = identify(os.getpid())
        if None in (self.boot_id, self.pid_namespace, self.started_at):
            return None
        if self.machine != here.machine:
            return None
        return _read_start(self.pid) != self.started_at


def identify(pid: int) -> ProcessIdentity:
    """Return the identity of a running process of this machine.

    >>> identify(os.getpid()).is_gone() in (False, None)
    True
    """
    return ProcessIdentity(pid, _read_boot_id(), _read_namespace(), _read_start(pid))


def _read_boot_id() -> str | None:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def _read_namespace() -> str | None:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return None


def _read_start(pid: int) -> int | None:
    """Return when a process started; None when there is none, or only its exit status is left."""
    with suppress(OSError, ValueError, IndexError):
        # The name in parentheses may hold anything; after it come the state and 18 more fields.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None
