"""Writes and reads the opaque words in our addresses: references to partitions, and cursors of lists.

A partition is a value of a job's arguments. Logs, histories and bookmarks store addresses, and no display
policy cleans them. The reference is the partition's text, encrypted with a key derived from the host's
`SECRET_KEY`. The same partition always has the same reference, so that a page stays the same text.
`docs/decisions/0025` says why there is no table of references.

A cursor is signed, and says where a page of a list begins. A place says the same openly, by time and id.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from flask import request

from ...core.signing import is_signed, read_word, sign, write_word
from . import problems
from .host import host

LONGEST_PARTITION = 200
_PARTITION_MAC = 16
# Texts are padded to a multiple of this, so that a reference reveals little about the length of its text.
_BLOCK = 32
# Microseconds since 1970, and an id.
_PLACE = re.compile(r"([0-9]{1,17})-([0-9]{1,18})")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def make_reference(secret: bytes, limiter: str, partition: str) -> str:
    """The reference to a partition of this limiter, for an address."""
    # Padded with NULs, which no partition contains, because Postgres stores none.
    text = partition.encode()
    text += b"\0" * (_BLOCK - len(text) % _BLOCK)
    mac = sign(secret, "partition", _named(limiter, text), _PARTITION_MAC)
    return write_word(mac + _encrypt(secret, mac, text))


def read_reference(secrets: Sequence[bytes], limiter: str, reference: str) -> str | None:
    """The partition of this limiter that a reference means; None when none of the secrets made it."""
    try:
        raw = read_word(reference)
    except ValueError:
        return None
    mac, encrypted = raw[:_PARTITION_MAC], raw[_PARTITION_MAC:]
    for secret in secrets:
        text = _encrypt(secret, mac, encrypted)
        if is_signed([secret], "partition", _named(limiter, text), mac, _PARTITION_MAC):
            return text.rstrip(b"\0").decode()
    return None


def asked_partition() -> str | None:
    """The partition in the current address; None for the whole limiter. Raises `Problem` when unreadable."""
    reference = request.args.get("partition")
    if reference is None:
        return None
    limiter = (request.view_args or {})["limiter"]
    found = read_reference(host().secrets, limiter, reference)
    if found is None:
        raise problems.unreadable(
            "partition: this address was not made here, or with a secret key that is gone. "
            f"Open the page of the limiter {limiter} and choose the partition there."
        )
    return found


def hide_partition(_endpoint: str, values: dict[str, Any]) -> None:
    """Replace the partition in the values of `url_for` by its reference, for every address of ours."""
    if values.get("partition") is not None:
        secret = host().secrets[0]
        values["partition"] = make_reference(secret, values["limiter"], values["partition"])


def _named(limiter: str, text: bytes) -> bytes:
    return limiter.encode() + b"\n" + text


def _encrypt(secret: bytes, mac: bytes, text: bytes) -> bytes:
    """The text XORed with a key stream derived from its own signature; the same call decrypts it."""
    stream = b""
    for number in count():
        if len(stream) >= len(text):
            break
        stream += sign(secret, "partition stream", mac + number.to_bytes(4, "big"))
    return bytes(one ^ other for one, other in zip(text, stream, strict=False))


_CURSOR_MAC = 12


class BadCursor(ValueError):
    """The cursor was made for another list, or not by us."""


def make_cursor(keys: Sequence[bytes], purpose: str, position: int) -> str:
    """The cursor for `position` in the list named by `purpose`, signed with the first key."""
    packed = position.to_bytes(8, "big")
    return write_word(packed + sign(keys[0], "cursor", _signed_text(purpose, packed), _CURSOR_MAC))


def read_cursor(keys: Sequence[bytes], purpose: str, word: str) -> int:
    """The position. Raises `BadCursor` unless one of the keys signed it for this purpose."""
    try:
        raw = read_word(word)
    except ValueError:
        raise BadCursor(word) from None
    packed, signature = raw[:8], raw[8:]
    if not is_signed(keys, "cursor", _signed_text(purpose, packed), signature, _CURSOR_MAC):
        raise BadCursor(word)
    return int.from_bytes(packed, "big")


def _signed_text(purpose: str, packed: bytes) -> bytes:
    return purpose.encode() + b"\n" + packed


def write_place(at: datetime, id_: int) -> str:
    """The place behind a row in a list that is ordered by a time and an id."""
    return f"{(at - _EPOCH) // _MICROSECOND}-{id_}"


def read_place(text: str) -> tuple[datetime, int] | None:
    """Time and id of the row before a place; None when the text is no place."""
    found = _PLACE.fullmatch(text)
    return None if found is None else (_EPOCH + int(found[1]) * _MICROSECOND, int(found[2]))


def read_list_query(known: Mapping[str, Collection[str]], *others: str) -> dict[str, str]:
    """The filters and the place of a list as the address has them: each of `known` is one of its words.

    Empty ones are left out. Raises `Problem` for another word.
    """
    query = {name: value for name in (*known, *others) if (value := request.args.get(name))}
    for name, words in known.items():
        if name in query and query[name] not in words:
            raise problems.unreadable(f"{name}: there is no {name} {query[name][:40]!r}.")
    return query


def require_place(query: Mapping[str, str], place: object) -> None:
    """Raise `Problem` when the address says where the page begins, and that was read as no `place`."""
    if "after" in query and place is None:
        raise problems.unreadable(f"after: {query['after'][:40]!r} is no place in a list.")
