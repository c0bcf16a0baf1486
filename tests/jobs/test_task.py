from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, SecretStr

from flask_opsjobs import OpsJobs, Unique
from flask_opsjobs.errors import DeclarationError


def plain(a: int, b: int = 2) -> int:
    return a + b


def with_secret(a: int, ssn: str | None = None) -> None: ...


class Opaque:
    pass


class Circle(BaseModel):
    kind: Literal["circle"]


class Shape(BaseModel):
    kind: str


def _unfit_signatures() -> dict[str, Callable[..., Any]]:
    def variadic(*numbers: int) -> None: ...
    def keyworded(**words: int) -> None: ...
    def positional(a: int, /) -> None: ...
    def method(self: Any, a: int) -> None: ...
    def many(a: int) -> Any:
        yield a

    return {name: found for name, found in locals().items() if callable(found)}


def _unfit_parameters() -> dict[str, Callable[..., Any]]:
    def fielded(a: int = Field(gt=0)) -> None: ...
    def opaque(a: Opaque) -> None: ...
    def tagged(a: Annotated[Circle | Shape, Field(discriminator="kind")]) -> None: ...
    def secret(token: SecretStr) -> None: ...
    def nested_secret(tokens: list[SecretStr]) -> None: ...

    return {name: found for name, found in locals().items() if callable(found)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("variadic", "*numbers: name every parameter"),
        ("keyworded", "**words: name every parameter"),
        ("positional", "a is positional-only"),
        ("method", "it is a method"),
        ("many", "it is a generator"),
        ("fielded", "a has a Field as its default: write Annotated"),
        ("opaque", "a is annotated Opaque"),
        # What pydantic advises is passed on.
        (
            "tagged",
            "pydantic says: Model 'Shape' needs field 'kind' to be of type `Literal`. Or take",
        ),
        ("secret", "token is a secret, which is stored as asterisks"),
        ("nested_secret", "tokens is a secret"),
    ],
)
def test_a_function_that_cannot_be_a_worker_is_refused(
    opsjobs: OpsJobs, name: str, words: str
) -> None:
    with pytest.raises(DeclarationError) as error:
        opsjobs.task((_unfit_signatures() | _unfit_parameters())[name])
    assert str(error.value).startswith(f"task {name}: ")
    assert words in str(error.value)
    assert opsjobs.tasks == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"queue": "two words"}, "queue 'two words' is not a name: use 1 to 200 letters"),
        ({"queue": ""}, "queue '' is not a name"),
        ({"queue": ".."}, "queue '..' is not a name: browsers"),
        ({"queue": "a\n"}, "is not a name"),
        ({"queue": "mail/1"}, "is not a name"),
        ({"queue": "ü"}, "is not a name"),
        ({"queue": "x" * 201}, "is not a name"),
        ({"queue": None}, "queue must be a text, got NoneType"),
        ({"priority": 10}, "priority must be a whole number from 0 (first) to 9, got 10"),
        ({"priority": -1}, "priority must"),
        ({"priority": True}, "priority must"),
        ({"priority": 1.5}, "priority must"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 1,000,000"),
        ({"timeout": 0}, "timeout must be whole seconds from 1 to 2,147,483,647, or None, got 0"),
        ({"timeout": 0.5}, "timeout must"),
        ({"timeout": 2**31}, "timeout must"),
        ({"deadline": timedelta(0)}, "deadline must be a timedelta above 0"),
        ({"deadline": 60}, "deadline must be a timedelta"),
        ({"deadline": timedelta(days=40_000)}, "above 0, at most 100 years"),
        ({"tags": "one"}, "tags must be a list of texts"),
        ({"tags": [""]}, "a tag must be a text of 1 to 200 characters, got ''"),
        ({"tags": ["a\0b"]}, "a tag must be a text"),
        ({"tags": ["x"] * 51}, "a job has at most 50 tags, got 51"),
        ({"tags": ["\ud800"]}, "a tag must be a text"),
        ({"meta": ["a"]}, "meta must be a dict"),
        ({"meta": {"a": Opaque()}}, "meta has a value of type Opaque, which JSON does not know"),
        ({"meta": {"a": "\0"}}, "meta has a NUL character"),
        ({"meta": {"a": float("nan")}}, "meta has NaN or Infinity"),
        ({"meta": {"a": 10**5000}}, "meta is nested too deep, or has a number"),
        ({"backoff": "soon"}, "backoff must be a function of the attempt"),
        ({"backoff": -1}, "backoff must be a function of the attempt"),
        ({"on_start": 1}, "on_start must be a function"),
        ({"record_output": "yes"}, "record_output must be True or False"),
        ({"name": "send mail"}, "its name 'send mail' is not a name"),
        ({"unique": True}, "unique must be a Unique(…), got bool"),
        (
            {"unique": Unique(by=["c"], until="ended")},
            "unique by 'c', which is not a parameter of it",
        ),
        ({"redact": {"c"}}, "redact names 'c', which is not a parameter of it"),
        ({"redact": {"a"}}, "a is redacted and has no default"),
        ({"redact": "b"}, "redact must be a set of parameter names, such as {'b'}"),
    ],
)
def test_a_wrong_option_is_refused_where_the_worker_is_declared(
    opsjobs: OpsJobs, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DeclarationError) as error:
        opsjobs.task(**options)(plain)
    assert words in str(error.value)
    assert str(error.value).startswith("task ")
    assert opsjobs.tasks == {}


def test_all_faults_are_told_at_once(opsjobs: OpsJobs) -> None:
    with pytest.raises(DeclarationError) as error:
        opsjobs.task(queue="a b", priority=12, max_attempts=0)(plain)
    for word in ("queue", "priority", "max_attempts"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "exactly one of within"),
        ({"within": timedelta(1), "until": "ended"}, "exactly one of within"),
        ({"until": "tomorrow"}, 'until must be "ended" or "forever", got \'tomorrow\''),
        ({"within": timedelta(0)}, "within must be a timedelta above 0"),
        ({"within": 60}, "within must be a timedelta above 0"),
        ({"until": "ended", "by": "a"}, "by must be a list of argument names"),
        ({"until": "ended", "by": ["a"], "key": str}, "give by or key, not both"),
        ({"until": "ended", "key": "a"}, "key must be a function"),
    ],
)
def test_uniqueness_has_exactly_one_lifetime(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DeclarationError) as error:
        Unique(**options)
    assert words in str(error.value)


def test_uniqueness_by_a_redacted_argument_is_refused(opsjobs: OpsJobs) -> None:
    with pytest.raises(DeclarationError, match="unique by 'ssn', which is redacted"):
        opsjobs.task(redact={"ssn"}, unique=Unique(by=["ssn"], until="ended"))(with_secret)
    declared = opsjobs.task(redact={"ssn"})(with_secret)
    with pytest.raises(DeclarationError, match="unique by 'ssn', which is redacted"):
        declared.options(unique=Unique(by=["a", "ssn"], until="ended"))


def test_a_name_belongs_to_one_function(opsjobs: OpsJobs) -> None:
    def other() -> None: ...

    first = opsjobs.task(plain)
    again = opsjobs.task(plain)  # its module was reloaded
    assert opsjobs.tasks["plain"] is again is not first
    with pytest.raises(
        DeclarationError, match=r"task plain is declared twice, by .*plain and by .*other"
    ):
        opsjobs.task(name="plain")(other)
    assert opsjobs.tasks["plain"] is again


def test_a_lambda_needs_a_name(opsjobs: OpsJobs) -> None:
    with pytest.raises(DeclarationError, match=r"its name '<lambda>' is not a name.*give name="):
        opsjobs.task(lambda: None)
    assert opsjobs.task(name="nothing")(lambda: None)() is None
    assert opsjobs.task(name="bound")(functools.partial(plain, b=4))(1) == 5


def test_calling_a_worker_calls_the_plain_function(opsjobs: OpsJobs) -> None:
    task = opsjobs.task(queue="mail")(plain)
    assert task(1) == 3
    assert task("a", b="b") == "ab"
    assert task.__name__ == "plain"  # type: ignore[attr-defined]
    assert task.__wrapped__ is plain  # type: ignore[attr-defined]


def test_an_annotation_may_name_a_class_that_is_defined_later(opsjobs: OpsJobs) -> None:
    def charge(invoice: Later) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    task = opsjobs.task(charge)
    globals().pop("Later", None)
    with pytest.raises(
        DeclarationError, match=r"its annotations name 'Later'.*not under TYPE_CHECKING"
    ):
        task.arguments.validate((), {"invoice": {"id": 1}})

    class Model(BaseModel):
        id: int

    globals()["Later"] = Model
    try:
        values = task.arguments.validate((), {"invoice": {"id": 1}})
    finally:
        del globals()["Later"]
    assert values == {"invoice": Model(id=1)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delay": -1}, "delay must be seconds or a timedelta, from 0 to 100 years"),
        ({"delay": float("nan")}, "delay must be"),
        ({"delay": "5"}, "delay must be"),
        ({"delay": timedelta(seconds=-1)}, "delay must be"),
        ({"scheduled_at": datetime(2030, 1, 1)}, "a datetime with a time zone"),  # noqa: DTZ001
        ({"scheduled_at": "tomorrow"}, "a datetime with a time zone"),
        ({"scheduled_at": datetime(9999, 1, 1, tzinfo=UTC)}, "9000 is the last"),
        ({"delay": 1, "scheduled_at": datetime(2030, 1, 1, tzinfo=UTC)}, "exclude each other"),
        ({"priority": 99}, "priority must"),
    ],
)
def test_a_wrong_option_of_a_call_is_refused(
    opsjobs: OpsJobs, changes: dict[str, Any], words: str
) -> None:
    task = opsjobs.task(plain)
    with pytest.raises(DeclarationError) as error:
        task.options(**changes)
    assert words in str(error.value)


def test_an_unknown_option_is_a_type_error(opsjobs: OpsJobs) -> None:
    with pytest.raises(TypeError, match=r"no option dely; did you mean delay\?"):
        opsjobs.task(plain).options(dely=1)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"task plain: there is no option quue; did you mean queue\?"
    ):
        opsjobs.task(quue="x")(plain)
    with pytest.raises(TypeError, match=r"task p: .* option delay; known are name, queue, .*_key$"):
        opsjobs.task(name="p", delay=5)(plain)


def test_options_leave_the_declaration_as_it_is(opsjobs: OpsJobs) -> None:
    task = opsjobs.task(queue="mail", timeout=5)(plain)
    call = task.options(queue="bulk", timeout=None)
    assert (call.chosen.queue, call.chosen.timeout) == ("bulk", None)
    assert (task.declared.queue, task.declared.timeout) == ("mail", 5)


def test_constraints_of_an_annotation_hold(opsjobs: OpsJobs) -> None:
    def pay(cents: Annotated[int, Field(gt=0)]) -> None: ...

    task = opsjobs.task(pay)
    assert task.arguments.validate((), {"cents": "5"}) == {"cents": 5}
