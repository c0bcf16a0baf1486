"""Signatures hold for one secret, one purpose, one message and one size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.core.signing import is_signed, read_word, sign, write_word

OLD, NEW = b"old", b"new"


def test_a_signature_holds_under_each_secret_that_is_known() -> None:
    made = sign(OLD, "preview", b"7", 12)
    assert is_signed([NEW, OLD], "preview", b"7", made, 12)


@pytest.mark.parametrize(
    ("secret", "purpose", "message", "signature"),
    [
        (NEW, "preview", b"7", sign(OLD, "preview", b"7")),
        (OLD, "cursor", b"7", sign(OLD, "preview", b"7")),
        (OLD, "preview", b"8", sign(OLD, "preview", b"7")),
        (OLD, "preview", b"7", sign(OLD, "preview", b"7", 12)),
        (OLD, "preview", b"7", b""),
    ],
    ids=["secret", "purpose", "message", "size", "nothing"],
)
def test_it_holds_for_nothing_else(
    secret: bytes, purpose: str, message: bytes, signature: bytes
) -> None:
    assert not is_signed([secret], purpose, message, signature)


@given(st.binary(max_size=100))
def test_a_word_is_read_as_it_was_written(raw: bytes) -> None:
    word = write_word(raw)
    assert read_word(word) == raw
    assert set(word) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@pytest.mark.parametrize("word", ["é", "a"])
def test_what_is_no_word_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_word(word)
