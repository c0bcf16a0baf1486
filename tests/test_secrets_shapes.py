"""Names and shapes of secrets: what must not be shown, and what must stay readable."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flask_opsjobs.core import secret_patterns
from flask_opsjobs.core.secret_patterns import clean_secrets, is_secret_key, mask_emails
from flask_opsjobs.jobs.perform.describe_error import one_line, traceback_of
from flask_opsjobs.jobs.perform.log_tail import Ring

SECRET_KEYS = """
    password db_password dbPassword DB-PASSWORD passwd accessToken X-API-Key apikey api_keys_token
    client_secret clientSecret Authorization Proxy-Authorization session_id privateKey
    ssn cvv pass db_pass AccountKey sig
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
    ("pass=hunter2 db_pass=hunter3", "pass=[hidden] db_pass=[hidden]"),
    ("AccountName=a;AccountKey=Zm9v==;X=1", "AccountName=a;AccountKey=[hidden];X=1"),
    ("GET /c?sv=1&sig=a%2Fb&se=2", "GET /c?sv=1&sig=[hidden]&se=2"),
    ("https://hooks.slack.com/services/T0/B0/x1 x", "https://hooks.slack.com/[hidden] x"),
    ("SG.abcdEFGH12345678ij.klmnOPQR12345678", "[hidden]"),
    ("npm_aBcD1234aBcD1234aBcD1234aBcD1234aBcD", "[hidden]"),
    ("pypi-AgEIcHlwaS5vcmcCJDEyMzQ1Njc4", "[hidden]"),
    ("OperationalError: postgresql://app:Sup3r…", "OperationalError: postgresql://[hidden]…"),
    ("OperationalError: postgresql://app:Sup3r", "OperationalError: postgresql://[hidden]"),
    ("cannot reach redis://:pa/ss#w", "cannot reach redis://[hidden]"),
    ("cloning https://ghp_0123…", "cloning https://[hidden]…"),
    ("{'password': 'Sup…", "{'password': '[hidden]'"),
    ('{"password": "Su p\n[12:00] next', '{"password": "[hidden]"\n[12:00] next'),
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
        "cannot reach https://api.example.com:8443",
        "cannot reach https://api.example.com:8443/v1/x",
        "cannot reach https://api.example.com/v1/x…",
        "cannot reach http://[::1]:8080/x",
        "a task-1 at risk-",
        "emoji 🧾 and NUL \ufffd",
    ],
)
def test_what_tells_no_secret_stays(text: str) -> None:
    assert clean_secrets(text) == text


@given(st.text(alphabet="abcdefgh0123456789!$%^*_-", min_size=8, max_size=40))
def test_a_password_in_a_url_never_shows(password: str) -> None:
    assert password not in clean_secrets(f"cannot reach amqp://ann:{password}@mq:5672/ now")


# What stands before a secret, the secret, what follows it.
CUT_OFF = [
    ("cannot reach postgresql://app:", "Sup3rS3cr/t", "@db:5432/x"),
    ("redis://:", "pa#ss3cr3t", "@c/0"),
    ("{'user': 'ann', 'password': '", "Sup3r s3cr t", "', 'id': 7}"),
    ('{"password": "', "Sup3r s3cr t", '", "id": 7}'),
    ('"{\\"password\\": \\"', "Sup3r s3cr t", '\\"}"'),
    ("host=db pass=", "Sup3rS3cret", " port=1"),
    ("AccountName=x;AccountKey=", "Zk9vYmFyQmF6==", ";EndpointSuffix=core"),
    ("GET /c?sv=1&sig=", "a%2Fb3cd4ef5", "&se=2"),
    ("to https://hooks.slack.com/services/", "T012AB/B34CD/x5YzabcdEFGH", " failed"),
    ("key SG.", "abcdEFGH12345678ij.klmnOPQR12345678stuv", " refused"),
    ("with npm_", "aBcD1234aBcD1234aBcD1234aBcD1234aBcD", " x"),
    ("with pypi-", "AgEIcHlwaS5vcmcCJDEyMzQ1Njc4", " x"),
    ("with ghp_", "aBcD1234aBcD1234aBcD1234", " x"),
    ("with AKIA", "IOSFODNN7EXAMPLE", " x"),
    ("sent bearer ", "aBcD1234.aBcD1234", " x"),
    ("Authorization: Basic ", "dXNlcjpwYXNz", " x"),
    (f"signed {JWT.rpartition('.')[0]}.", "c2lnbmF0dXJl", " well"),
    ("-----BEGIN PRIVATE KEY-----\n", "MIIEvQIBADANBg\nkqhkiG9w", "\n-----END PRIVATE KEY-----"),
]
CUTS = ("", "…", "…\n12:00:01.000 INFO x: the next line", "\n  … 12 bytes left out …\nrest")


@pytest.mark.parametrize("mark", CUTS, ids=["end", "mark", "line", "gap"])
@pytest.mark.parametrize(("before", "secret", "after"), CUT_OFF, ids=[one[0] for one in CUT_OFF])
def test_a_secret_that_is_cut_off_at_any_place_does_not_show(
    before: str, secret: str, after: str, mark: str
) -> None:
    whole = before + secret + after
    for at in range(len(before) + 1, len(whole)):
        cut = whole[:at] + mark
        shown = clean_secrets(cut)
        seen = secret[: at - len(before)]
        if len(seen) >= 3:
            assert seen[:3] not in shown, cut
        assert clean_secrets(shown) == shown


@given(st.integers(0, 700), st.sampled_from(CUT_OFF[:6]))
def test_no_error_keeps_a_secret_that_its_cut_has_broken(
    room: int, parts: tuple[str, str, str]
) -> None:
    before, secret, after = parts
    error = ValueError("x" * room + " " + before + secret + after)
    shown = clean_secrets(one_line(error))
    assert secret[:3] not in shown


@given(st.integers(0, 200), st.sampled_from(CUT_OFF[:6]))
def test_no_logged_line_keeps_a_secret_that_its_cut_has_broken(
    room: int, parts: tuple[str, str, str]
) -> None:
    before, secret, after = parts
    ring = Ring(memoryview(bytearray(Ring.HEAD_BYTES + 200)))
    ring.write(("y" * room + " " + before + secret + after).encode())
    ring.write(b"the next line")
    shown = clean_secrets(ring.read())
    assert "the next line" in shown
    assert secret[:3] not in shown


@pytest.mark.slow
@settings(deadline=None)
@given(st.integers(0, 200))
def test_no_traceback_keeps_a_secret_that_its_gap_has_broken(room: int) -> None:
    lines = (f"{number:04} password='Sup3r s3cret {number}'" for number in range(2_000))
    shown = clean_secrets(traceback_of(ValueError("z" * room + "\n" + "\n".join(lines))))
    assert "bytes left out" in shown
    assert "Sup3r" not in shown
    assert "s3cret" not in shown


# With words in other letters, which are equal without regard to case.
_OTHERS = (
    "\u017f",
    "AUTHOR\u0131ZATION: x ",
    "ba\u017fic abcdefgh ",
    "Coo\u212aie: a",
    "\n",
    " ",
    "…",
    "é",
)
_PIECES = [*(text for text, _ in CLEANED), *map("".join, CUT_OFF), *_OTHERS]


@given(st.lists(st.sampled_from(_PIECES), max_size=4))
@example(["AUTHOR\u0131ZATION: x "])
def test_no_shape_is_missed_for_want_of_its_words(pieces: list[str]) -> None:
    text = "".join(pieces)
    shown = clean_secrets(text)
    with pytest.MonkeyPatch.context() as patch:
        every = [(shape, instead, ("",)) for shape, instead, _ in secret_patterns._SHAPES]
        patch.setattr(secret_patterns, "_SHAPES", every)
        assert clean_secrets(text) == shown


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
        "https://a:b ",
        "http://a:b…",
        "https://hooks.slack.com/services/",
        'token="x\n',
        "sk-",
        "SG.",
        "bearer a  ",
    ],
)
def test_a_long_text_takes_no_time(piece: str) -> None:
    """The whole text of a traceback may be 32 kB; none of the patterns may be quadratic on it."""
    assert clean_secrets(mask_emails(piece * 40_000))
