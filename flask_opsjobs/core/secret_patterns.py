"""Finds secrets by the names of their keys, and by their shapes in any text, and hides them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

HIDDEN = "[hidden]"

_WORDS = """
    pass password passwords passwd pwd passphrase passcode pin secret secrets token tokens jwt otp hmac
    authorization auth bearer credential credentials cookie cookies signature sig ssn cvv cvc iban
"""
_PAIRS = """
    api-key access-key secret-key private-key signing-key encryption-key session-key session-id
    account-key card-number connection-string database-url
"""
# A value is hidden when one word of its key is in this set: `db_password`, `accessToken`, `X-Auth-Token`.
HIDDEN_WORDS = frozenset(_WORDS.split())
# … or when two neighbouring words are, `api_key` and `privateKey`, also written as one word: `apikey`.
HIDDEN_PAIRS = frozenset(_PAIRS.replace("-", "").split())
_ENDINGS = ("password", "passwd", "secret", "token", "apikey", "credentials")

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[A-Za-z0-9]+")


def is_secret_key(key: str) -> bool:
    """Whether a value under this key of arguments, output or meta is probably a secret."""
    words = _words(key)
    pairs = (first + second for first, second in pairwise(words))
    return any(map(_is_secret_word, words)) or any(pair in HIDDEN_PAIRS for pair in pairs)


def _words(key: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", key))]


def _is_secret_word(word: str) -> bool:
    return word in HIDDEN_WORDS or word in HIDDEN_PAIRS or word.endswith(_ENDINGS)


@lru_cache(1_000)  # many texts have the same names
def _names_a_secret(key: str) -> bool:
    # In running text the secret's word must be the last of the name: `InvalidTokenError: expired` is no
    # secret.
    words = _words(key)
    return bool(words) and (_is_secret_word(words[-1]) or "".join(words[-2:]) in HIDDEN_PAIRS)


# The end of a text, or an `…`: a text may be cut off there, in the middle of a secret.
_CUT = r"(?=\s*(?:…|\Z))"

_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.S)
_JWT = re.compile(r"\beyJ[\w-]{4,}\.[\w-]{4,}(?:\.[\w-]*)*")
# Everything between `://` and the last `@` of the host part: a name, a password, or only a token.
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/?#\"'<>]+@")
# The same with a password that has an unescaped `/`, `?` or `#`; not `host:port/…@`.
_ODD_USERINFO = re.compile(r"(://)[^\s/?#:@\"'<>]*:(?!\d{1,5}(?:[/?#\s]|\Z))[^\s@\"'<>]{1,256}@")
# The same, cut off before the `@`: a name and a part of the password, but not `host:port` and its path.
# Before an `…` also a name or token alone.
_CUT_USERINFO = re.compile(
    r"(\b[A-Za-z][A-Za-z0-9+.-]{0,30}://)"
    r"(?:(?!\[)[^\s/?#:@\"'<>…]*:(?!\d{1,5}(?:[/?#\s]|\Z))[^\s@\"'<>…]+"
    + _CUT
    + r"|[^\s/?#@\"'<>…]+(?=…))"
)
_HEADER = re.compile(
    r"(\b(?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)"
    r"(?:(?:bearer|basic|digest|token)\s+)?[^\s\"',]+",
    re.I,
)
_COOKIE = re.compile(r"(\b(?:set-)?cookie[\"']?\s*[:=]\s*)[^\r\n\"']+", re.I)
_SCHEME = re.compile(
    rf"\b(bearer|basic)\s+(?:[A-Za-z0-9._~+/=-]{{8,}}|[A-Za-z0-9._~+/=-]+{_CUT})", re.I
)
# Everybody who knows the address of a Slack webhook can post to it.
_WEBHOOK = re.compile(
    r"(\bhttps?://hooks\.slack(?:-gov)?\.com/)(?:services|workflows|triggers)/[\w/-]*"
)
# Prefixes that issuers put before their tokens so that scanners find them.
_ISSUED = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}"
    r"|xox[abeoprs]-[\w-]{10,}|[rs]k_(?:live|test)_\w{10,}|sk-[\w-]{20,}|AIza[\w-]{35}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|npm_\w{20,}|pypi-[\w-]{16,})"
)
# The same, cut off.
_CUT_ISSUED = re.compile(
    r"\b(?:AKIA[0-9A-Z]|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|[rs]k_(?:live|test)_|sk-|AIza|SG\.|npm_|pypi-)"
    r"[\w.-]*" + _CUT
)
_PREFIXES = (
    "akia",
    "gh",
    "glpat-",
    "xox",
    "k_live_",
    "k_test_",
    "sk-",
    "aiza",
    "sg.",
    "npm_",
    "pypi-",
)
# Each shape, what replaces it, and words in lower case of which each text with this shape has one. Most texts
# have none: to look for a word costs a tenth of looking for a shape.
_SHAPES = (
    (_PEM, HIDDEN, ("-----begin ",)),
    (_USERINFO, rf"\1{HIDDEN}@", ("@",)),
    (_ODD_USERINFO, rf"\1{HIDDEN}@", ("@",)),
    (_CUT_USERINFO, rf"\1{HIDDEN}", ("://",)),
    (_WEBHOOK, rf"\1{HIDDEN}", ("hooks.slack",)),
    (_HEADER, rf"\1{HIDDEN}", ("authorization",)),
    (_COOKIE, rf"\1{HIDDEN}", ("cookie",)),
    (_SCHEME, rf"\1 {HIDDEN}", ("bearer", "basic")),
    (_JWT, HIDDEN, ("eyj",)),
    (_ISSUED, HIDDEN, _PREFIXES),
    (_CUT_ISSUED, HIDDEN, _PREFIXES),
)
_KEY = re.compile(r"(\b[A-Za-z][\w.-]{0,60})\\?[\"']?\s{0,3}(?:=>|[:=])\s{0,3}")
_VALUE = re.compile(
    r"\\[\"'](?:(?!\\[\"']).)*\\[\"']"
    r"|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'"
    r"|\\?[\"'][^\r\n]*"  # a quote without an end: the rest of the line
    r"|[^\s,;&\"')}\]]+"
)
_QUOTE = re.compile(r"\\?[\"']")
_EMAIL = re.compile(r"\b([\w])[\w.+%-]{0,63}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")


def clean_secrets(text: str) -> str:
    """The text with PEM blocks, tokens, URLs' credentials and `password=…` replaced by `[hidden]`.

    It knows only shapes: a secret that looks like an ordinary word is found only after a name such as
    `password`. A secret that is cut off, at the end of the text or before an `…`, is hidden too.
    """
    # Without regard to case, some letters beyond ASCII are equal to letters of a word.
    is_ascii, lower = text.isascii(), text.lower()
    for shape, instead, words in _SHAPES:
        if not is_ascii or _has_one_of(words, lower):
            text = shape.sub(instead, text)
    return "".join(_hide_values(text))


def _has_one_of(words: Sequence[str], text: str) -> bool:
    for word in words:  # noqa: SIM110 - any() takes three times as long
        if word in text:
            return True
    return False


def _hide_values(text: str) -> Iterator[str]:
    """The text in pieces, with `[hidden]` in place of each value after a name such as `password`."""
    done = at = 0
    # The word after a harmless name may be the next name: `LoginError: password=…`.
    while key := _KEY.search(text, at):
        at = key.end()
        value = _VALUE.match(text, at) if _names_a_secret(key[1]) else None
        if value is None or value[0].startswith(HIDDEN[:-1]):
            continue
        quote = _QUOTE.match(value[0])
        mark = quote[0] if quote else ""
        yield f"{text[done:at]}{mark}{HIDDEN}{mark}"
        done = at = value.end()
    yield text[done:]


def mask_emails(text: str) -> str:
    """The text with each e-mail address cut to its first letter and its domain: `a…@example.com`."""
    return _EMAIL.sub(r"\1…@\2", text) if "@" in text else str(text)
