"""Signs with the host's `SECRET_KEY`, separately for each purpose, and writes bytes as URL-safe words."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence


def sign(secret: bytes, purpose: str, message: bytes, size: int = 32) -> bytes:
    """HMAC-SHA256 (RFC 2104) of the message: its first `size` bytes, 32 at most.

    A signature for one purpose is not valid for another purpose, nor for anything that the host signs itself.
    """
    return hmac.digest(secret, f"flask_opsjobs.{purpose}\0".encode() + message, "sha256")[:size]


def is_signed(
    secrets: Sequence[bytes], purpose: str, message: bytes, signature: bytes, size: int = 32
) -> bool:
    """Whether one of the secrets made this signature of `size` bytes. Old keys are still accepted."""
    return any(
        hmac.compare_digest(signature, sign(secret, purpose, message, size)) for secret in secrets
    )


def write_word(raw: bytes) -> str:
    """The bytes in URL-safe base64 without padding: letters, digits, `-` and `_`."""
    return urlsafe_b64encode(raw).decode().rstrip("=")


def read_word(word: str) -> bytes:
    """The bytes that `write_word` wrote. Raises `ValueError` when the word is not base64."""
    return urlsafe_b64decode(word.encode("ascii") + b"=" * (-len(word) % 4))
