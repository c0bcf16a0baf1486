"""The failure key: equal for the same bug, whatever its lines and values are; different for another bug."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from flask_opsjobs.errors import DeclarationError
from flask_opsjobs.jobs.failure_key import (
    hide_values,
    key_of_end,
    key_of_error,
    key_of_others,
    merge_messages,
)
from flask_opsjobs.jobs.host_code import is_host_file, package_of
from flask_opsjobs.jobs.record.declaration import TaskDeclaration

PACKAGE = "shop"


def host_code(source: str, **values: Any) -> Callable[..., Any]:
    """The function `bug` of a module of the host, compiled from its source."""
    namespace: dict[str, Any] = {"__name__": "shop.tasks", **values}
    exec(compile(source, "/srv/shop/tasks.py", "exec"), namespace)
    bug: Callable[..., Any] = namespace["bug"]
    return bug


def key_of(bug: Callable[..., Any], *args: Any, task: str = "ship", given: Any = None) -> str:
    """The key of what the function raises."""
    try:
        bug(*args)
    except Exception as error:
        return key_of_error(task, error, PACKAGE, given)
    raise AssertionError("the bug raised nothing")


BUG = "def bug(value):\n    raise ValueError(f'{value} is no number')\n"


def test_values_and_lines_are_no_part_of_a_key() -> None:
    first = key_of(host_code(BUG), 1)
    assert key_of(host_code(BUG), "x" * 9_000) == first
    assert key_of(host_code("# a new line\n\n\n" + BUG), 2) == first
    assert len(bytes.fromhex(first)) == 16
    assert bytes.fromhex(first)[0] == 1


def test_another_bug_has_another_key() -> None:
    bugs = [
        host_code(BUG),
        host_code(BUG.replace("ValueError", "TypeError")),
        host_code("def bug(value):\n    inner(value)\n" + BUG.replace("bug", "inner")),
        host_code(BUG, __name__="shop.other"),
    ]
    keys = [key_of(bug, 1) for bug in bugs] + [key_of(bugs[0], 1, task="bill")]
    assert len(set(keys)) == 5


def test_only_the_innermost_three_functions_of_the_host_count() -> None:
    def calls(depth: int) -> Callable[..., Any]:
        outer = "def bug(value):\n    level_0(value)\n"
        levels = "".join(
            f"def level_{each}(value):\n    {f'level_{each + 1}' if each < depth else 'c'}(value)\n"
            for each in range(depth + 1)
        )
        ends = "def c(value):\n    b(value)\ndef b(value):\n    a(value)\ndef a(value):\n    int(value)\n"
        return host_code(outer + levels + ends)

    assert key_of(calls(1), "x") == key_of(calls(9), "x")


def test_a_library_between_the_functions_does_not_count() -> None:
    # json is Python's own; the hook that it calls is the host's.
    direct = host_code(
        "def hook(pairs):\n    raise KeyError(pairs)\ndef bug(text):\n    hook(text)\n"
    )
    through = host_code(
        "def hook(pairs):\n    raise KeyError(pairs)\n"
        "def bug(text):\n    json.loads(text, object_pairs_hook=hook)\n",
        json=json,
    )
    assert key_of(direct, "{}") == key_of(through, "{}")


def test_without_a_function_of_the_host_the_message_counts_without_its_values() -> None:
    def error(text: str) -> ValueError:
        return ValueError(text)

    keys = [
        key_of_error("ship", error(text), PACKAGE)
        for text in ("order 7 is gone", "order 8,000 is gone", "order is gone", "no order 7")
    ]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_task_may_give_its_own_key(caplog: pytest.LogCaptureFixture) -> None:
    bug, default = host_code(BUG), key_of(host_code(BUG), 1)
    own = key_of(bug, 1, given=lambda error: str(error)[:1])
    assert own == key_of(host_code(BUG.replace("ValueError", "KeyError")), 1, given=lambda _: "1")
    assert own != default
    assert key_of(bug, 1, given=lambda _: None) == default
    with caplog.at_level(logging.ERROR):
        assert key_of(bug, 1, given=lambda _: 7) == default
        assert key_of(bug, 1, given=lambda error: error.missing) == default
    wrong, raised = [record.message for record in caplog.records]
    assert wrong == "the failure_key of task ship is a int, not a text; the default is taken"
    place = rf"AttributeError at {re.escape(__file__)}:\d+"
    assert re.fullmatch(
        rf"the failure_key of task ship raised \({place}\); the default is taken", raised
    )


def test_a_function_without_a_module_has_no_package() -> None:
    namespace: dict[str, Any] = {}
    exec("def bug(): ...", namespace)
    assert package_of(namespace["bug"]) == ""
    assert package_of(json.loads) == "json"


def test_a_key_that_is_no_function_is_refused() -> None:
    with pytest.raises(DeclarationError, match="failure_key must be a function"):
        TaskDeclaration(lambda: None, name="ship", failure_key="order")  # type: ignore[arg-type]


def test_the_other_keys_of_a_task_are_its_own() -> None:
    keys = {key_of_end("ship", "died", "signal"), key_of_end("ship", "died", "exited")}
    keys |= {key_of_end("bill", "died", "signal"), key_of_others("ship"), key_of_others("bill")}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("message", "hidden"),
    [
        ("nothing to hide", "nothing to hide"),
        ("order 7", "order …"),
        ("took 1.5e-3 s at 12:30:01,5", "took … s at …"),
        ("KeyError: 'signature_key'", "KeyError: …"),
        ("didn't find `it`, can't say", "didn't find …, can't say"),
        ("in /srv/a b.csv", "in … b.csv"),
        (r"in C:\Users\ada\a.csv!", "in …!"),
        ("job 123e4567-e89b-12d3-a456-426614174000 left", "job … left"),
        ("at https://api.example/v1?x=y now", "at … now"),
        ("to ada@example.org", "to …"),
        ("read/write of and/or", "read/write of and/or"),
        ("", ""),
    ],
)
def test_values_are_hidden(message: str, hidden: str) -> None:
    assert hide_values(message) == hidden


def test_a_message_of_one_long_word_is_read_once() -> None:
    # Not quadratic: 200,000 steps, not 20,000,000,000.
    assert hide_values("a-" * 100_000) == "a-" * 100_000
    assert hide_values("'" * 20_000) != ""


@pytest.mark.parametrize(
    ("known", "new", "merged"),
    [
        ("KeyError: 'a'", "KeyError: 'a'", "KeyError: 'a'"),
        ("KeyError: 'a'", "KeyError: 'b'", "KeyError: …"),
        ("a 1 b 2", "a 1 b 3", "a 1 b …"),
        ("a … b 2", "a 7 b 2", "a … b 2"),
        ("a 1", "quite another 2", "a …"),
        ("a 1", "a", "a …"),
    ],
)
def test_messages_keep_what_is_the_same(known: str, new: str, merged: str) -> None:
    assert merge_messages(known, new) == merged


@pytest.mark.parametrize(
    ("path", "is_host"),
    [
        ("/srv/shop/tasks.py", True),
        ("tasks.py", True),
        (r"C:\shop\tasks.py", True),
        ("/venv/lib/python3.11/site-packages/requests/api.py", False),
        ("/venv/lib/python3.11/site-packages/shop/tasks.py", True),
        ("/venv/lib/python3.11/site-packages/shop.py", True),
        ("/usr/lib/python3/dist-packages/requests.py", False),
        ("/usr/lib/python3.11/json/decoder.py", False),
        (r"C:\Python311\Lib\site-packages\requests\api.py", False),
        (json.__file__, False),
        (is_host_file.__wrapped__.__code__.co_filename, False),
        ("<frozen importlib._bootstrap>", False),
        ("<string>", False),
    ],
)
def test_the_hosts_code_is_told_by_its_file(path: str, is_host: bool) -> None:
    assert is_host_file(path, PACKAGE) is is_host
