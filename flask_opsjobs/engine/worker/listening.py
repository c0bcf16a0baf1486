"""Waits until a child of a worker, or another thread of its parent, has something to say."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from .mailbox import Mailbox
from .places import Place

# While each child has so many orders, their words are read once in so many milliseconds: many words cost
# little more than one.
_SUPPLIED, _LINGER_MS = 20, 1


class Listening:
    """What the main thread of a worker polls: the words and the ends of children, and its mailbox."""

    def __init__(self, mailbox: Mailbox[Any]) -> None:
        self._mailbox = mailbox
        self._of_descriptor: dict[int, Place] = {}
        self._poll = select.poll()
        # Everything but the words of children.
        self._urgent = select.poll()
        for poll in (self._poll, self._urgent):
            poll.register(mailbox.descriptors()[0], select.POLLIN)

    def add(self, place: Place) -> None:
        """Listen to the child of a place."""
        assert place.child is not None
        words, end = place.child.polled()
        self._of_descriptor |= {words: place, end: place}
        self._poll.register(words, select.POLLIN)
        for poll in (self._poll, self._urgent):
            poll.register(end, select.POLLIN)

    def forget(self, *descriptors: int) -> None:
        """Listen to these no more."""
        for descriptor in descriptors:
            if self._of_descriptor.pop(descriptor, None) is not None:
                self._poll.unregister(descriptor)
                with suppress(KeyError):
                    self._urgent.unregister(descriptor)

    def linger(self, places: list[Place]) -> None:
        """Let words wait for a moment while every child has enough to do."""
        if all(len(place.sent) >= _SUPPLIED for place in places):
            self._urgent.poll(_LINGER_MS)

    def wait(self, milliseconds: float) -> Iterator[tuple[Place, int]]:
        """Yield each place whose child has said something or has ended, and the descriptor that tells it."""
        for descriptor, _ in self._poll.poll(milliseconds):
            place = self._of_descriptor.get(descriptor)
            if place is not None:
                yield place, descriptor
            else:
                self._mailbox.hush()
