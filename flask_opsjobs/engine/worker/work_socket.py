"""Carries orders to a child, one message each. Its parent can take back what the child has not received.

Who receives a message has it, and nobody else: the system gives a message to one of both. So the child
may begin what it has received, and what the parent has taken back nobody has begun.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

from .frames import Key, Order

# What every message begins with: the kind of the order, and whose order it is.
_HEAD = struct.Struct("<BQQ")
# A larger order is passed as a file in memory, and so is one for which the socket has too little room at all.
LARGE_BYTES = 1 << 16
_MESSAGE_BYTES = _HEAD.size + LARGE_BYTES
_AT_ONCE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_ANCILLARY_BYTES = socket.CMSG_SPACE(array.array("i", [0]).itemsize)


class WorkSocket:
    """The way of a child's orders. The parent keeps the child's end too, and never waits at either.

    >>> orders = WorkSocket()
    >>> orders.send(Order.JOB, (7, 1), b"first"), orders.send(Order.JOB, (8, 1), b"second")
    (True, True)
    >>> orders.receive()
    (1, (7, 1), b'first')
    >>> list(orders.take_back())
    [(8, 1)]
    """

    def __init__(self) -> None:
        """Raises `OSError` when the system refuses."""
        # Both ends wait in calls without the flag: only the child makes such calls.
        self._to_child, self._at_child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._buffer = bytearray()

    def descriptors(self) -> tuple[int, int]:
        """Return the descriptors of both ends."""
        return self._to_child.fileno(), self._at_child.fileno()

    def close(self) -> None:
        """Close both ends."""
        self._to_child.close()
        self._at_child.close()

    # --- for the parent ---

    def send(self, kind: Order, key: Key, body: bytes = b"") -> bool:
        """Send an order; False when there is no room for it now."""
        head = _HEAD.pack(kind, *key)
        try:
            if len(body) <= LARGE_BYTES:
                try:
                    self._to_child.send(head + body, _AT_ONCE)
                except OSError as error:
                    if error.errno != errno.EMSGSIZE:
                        raise
                else:
                    return True
            self._send_as_file(head, body)
        except OSError:
            return False
        return True

    def _send_as_file(self, head: bytes, body: bytes) -> None:
        descriptor = os.memfd_create("order", os.MFD_CLOEXEC)
        with open(descriptor, "wb", buffering=0) as file:
            while body:
                body = body[file.write(body) :]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            self._to_child.sendmsg([head], rights, _AT_ONCE)

    def take_back(self) -> Iterator[Key]:
        """Yield whose orders the child has not received. It will never receive them."""
        while True:
            try:
                # The rest of the message is dropped, and a file that was passed with it is closed.
                message = self._at_child.recv(_HEAD.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not message:
                return
            _, job_id, number = _HEAD.unpack(message)
            yield job_id, number

    def end(self) -> None:
        """Let the child leave when it has received what was sent."""
        with contextlib.suppress(OSError):
            self._to_child.shutdown(socket.SHUT_WR)

    # --- for the child ---

    def leave_to_parent(self) -> None:
        """Close the parent's end in the child."""
        self._to_child.close()

    def receive(self) -> tuple[int, Key, bytes] | None:
        """Wait for an order and return it; None when the parent wants the child to leave."""
        message, ancillary, _, _ = self._at_child.recvmsg(
            _MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return None
        kind, job_id, number = _HEAD.unpack_from(message)
        body = _read_file(ancillary[0][2]) if ancillary else message[_HEAD.size :]
        return kind, (job_id, number), body


def _read_file(rights: bytes) -> bytes:
    """Return what is in the file that was passed, and close it."""
    (descriptor,) = array.array("i", rights)
    with open(descriptor, "rb", buffering=0):
        # Its position is that of the parent, at the end.
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
