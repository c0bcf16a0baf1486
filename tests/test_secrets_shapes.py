"""Names and shapes of secrets: what must not be shown, and what must stay readable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_opsjobs.secrets_shapes import clean_secrets, is_secret_key, mask_emails

SECRET_KEYS = """
    password db_password dbPassword DB-PASSWORD passwd accessToken X-API-Key apikey api_keys_token
    client_secret clientSecret Authorization Proxy-Authorization session_id privateKey ssn cvv
    database_url refresh.token githubtoken
"""
PLAIN_KEYS = """
    author authors pinned opinion secretary keyboard monkey account_id invoice_id tokenizer
    session_count key keys name url assignature
"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_keys_of_secrets_are_known(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", [*PLAIN_KEYS.split(), "", "…", "  "])
def test_other_keys_are_not(key: str) -> None:
    assert not is_secret_key(key)


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

CLEANED = [
    ("postgresql://ann:s3cr@t@db:5432/x", "postgresql://[hidden]@db:5432/x"),
    ("redis://:pa/ss@cache/0", "redis://[hidden]@cache/0"),
    ("https://ghp_0123456789@github.com/x", "https://[hidden]@github.com/x"),
    ("password=hunter2 host=db", "password=[hidden] host=db"),
    ("{'password': 'hun ter2', 'id': 7}", "{'password': '[hidden]', 'id': 7}"),
    ('{"api_key": "x\\"y", "id": 7}', '{"api_key": "[hidden]", "id": 7}'),
    ('"{\\"password\\": \\"a b\\"}"', '"{\\"password\\": \\"[hidden]\\"}"'),
    ("LoginError: password=hunter2 refused", "LoginError: password=[hidden] refused"),
    ("error: cause: db_password: hunter2", "error: cause: db_password: [hidden]"),
    ("said='password=hunter2'", "said='password=[hidden]'"),
    ("GET /x?token=abc&page=2", "GET /x?token=[hidden]&page=2"),
    ("Authorization: Bearer abc.def-ghi", "Authorization: [hidden]"),
    ("{'Authorization': 'Basic dXNlcjpw', 'X': 1}", "{'Authorization': '[hidden]', 'X': 1}"),
    ("sent bearer abcdefgh12345678", "sent bearer [hidden]"),
    ("Set-Cookie: session=abc; Path=/\nnext", "Set-Cookie: [hidden]\nnext"),
    (f"signed {JWT} well", "signed [hidden] well"),
    ("AKIAIOSFODNN7EXAMPLE", "[hidden]"),
    ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nx", "[hidden]\nx"),
    ("cut off: -----BEGIN PRIVATE KEY-----\nabc", "cut off: [hidden]"),
]


@pytest.mark.parametrize(("text", "shown"), CLEANED)
def test_shapes_are_hidden(text: str, shown: str) -> None:
    assert clean_secrets(text) == shown


@pytest.mark.parametrize(("text", "shown"), CLEANED)
def test_cleaning_twice_changes_nothing(text: str, shown: str) -> None:
    assert clean_secrets(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "GatewayTimeout: https://api.example.com:8443/v1/x timed out after 30 s",
        "InvalidTokenError: Signature has expired",
        "KeyError: 'token'",
        'File "app.py", line 3, in author\n    raise Boom(name)',
        "token_count=5 author=ann",
        "emoji 🧾 and NUL \ufffd",
    ],
)
def test_what_tells_no_secret_stays(text: str) -> None:
    assert clean_secrets(text) == text


@given(st.text(alphabet="abcdefgh0123456789!$%^*_-", min_size=8, max_size=40))
def test_a_password_in_a_url_never_shows(password: str) -> None:
    assert password not in clean_secrets(f"cannot reach amqp://ann:{password}@mq:5672/ now")


@given(st.text())
def test_any_text_may_be_cleaned(text: str) -> None:
    assert clean_secrets(mask_emails(text)) is not None


def test_addresses_keep_a_letter_and_their_domain() -> None:
    assert mask_emails("to bob.miller+x@mail.example.com!") == "to b…@mail.example.com!"
    assert mask_emails("a @ b, git@host") == "a @ b, git@host"


@pytest.mark.parametrize(
    "piece",
    [
        "http://",
        "a.a-",
        "'",
        '"\\',
        "key='",
        "a@",
        "a  =  ",
        "a=\\'",
        "a=",
        "a=b='",
        "token='",
        "://a:b",
        "eyJaaaa.",
    ],
)
def test_a_long_text_takes_no_time(piece: str) -> None:
    """The whole text of a traceback may be 32 kB; none of the patterns may be quadratic on it."""
    assert clean_secrets(mask_emails(piece * 40_000))
