"""Checks the configuration: the app, its secret key, its policies and its settings."""

from __future__ import annotations

import inspect
from typing import Any

from ..actions.registry import ACTIONS
from ..core.words import counted
from ..install import plan
from ..install.starters.opsjobs_access import HostAccess
from ..policy import describe_failure, find_actor, find_place, find_sign_in, is_allowed
from .check import (
    ERROR,
    WARNING,
    CheckAnswer,
    CheckContext,
    DoctorCheck,
    error,
    ok,
    warning,
)

_MAKE_KEY = "python -c 'import secrets; print(secrets.token_hex())'"
_SHORTEST_KEY, _FEWEST_CHARACTERS = 16, 6
# Environments in which Flask's debugger may be on.
_AT_HOME = ("development", "dev", "local", "test", "testing")
_VIEWS = ("overview.view", "jobs.view", "payload.view", "audit.view")


def _app(context: CheckContext) -> CheckAnswer:
    if context.app is None:
        return error("The app does not start.", context.why_not)
    if sentence := plan.find_unjoined(context.app):
        return error(f"{sentence[:1].upper()}{sentence[1:]}.", run="flask opsjobs install")
    return ok("The app starts, and has joined OpsJobs.")


def _secret_key(context: CheckContext) -> CheckAnswer:
    key = context.host.secrets[0]
    if len(key) < _SHORTEST_KEY or len(set(key)) < _FEWEST_CHARACTERS:
        return warning(
            f"SECRET_KEY is easy to guess: it has {counted(len(key), 'character')}, "
            f"{len(set(key))} of them different.",
            f"It signs the audit, page cursors and unique locks. Give it {_SHORTEST_KEY} random characters "
            "or more, and keep the old one in SECRET_KEY_FALLBACKS.",
            run=_MAKE_KEY,
        )
    return ok("SECRET_KEY is long enough.")


def _starter(context: CheckContext) -> CheckAnswer:
    kind = type(context.host.access)
    for method in ("current_actor", "can"):
        if _source_of(getattr(kind, method)) == _source_of(getattr(HostAccess, method)):
            return warning(
                "The access policy is still the starter, which lets nobody in.",
                "The starter is a place to start, and no policy for production. "
                f"Its method {method} is as `flask opsjobs install` wrote it: edit it.",
            )
    return ok("The access policy is your own.")


def _source_of(method: Any) -> str:
    try:
        return inspect.getsource(method)
    except (OSError, TypeError):  # written in C, or typed in
        return f"{method!r}"


def _open(context: CheckContext) -> CheckAnswer:
    raised: list[str] = []
    access, app = context.host.access, context.app
    assert app is not None
    with app.test_request_context("/"):
        actor = find_actor(access, lambda _asked, fault: raised.append(describe_failure(fault)))
        if raised:
            return error("The access policy raises, so it lets nobody in.", f"{raised[0]}.")
        if actor is None:
            return ok("The access policy lets in nobody who is not signed in.")
        wanted = [*_VIEWS, *dict.fromkeys(action.permission for action in ACTIONS.values())]
        held = [each for each in wanted if is_allowed(access, actor, each, None, lambda *_: None)]
    if not held:
        return ok("The access policy lets in nobody who is not signed in.")
    return error(
        f"The access policy lets everybody in as {actor}, without a sign-in.",
        f"A request without a cookie and without a header holds {counted(len(held), 'permission')}, "
        f"{held[0]} among them. `current_actor` must answer None when nobody is signed in.",
    )


def _sign_in(context: CheckContext) -> CheckAnswer:
    raised: list[str] = []
    host, app = context.host, context.app
    assert app is not None
    with app.test_request_context("/"):
        address = find_sign_in(
            host.access,
            host.settings.url_prefix,
            lambda _asked, fault: raised.append(describe_failure(fault)),
        )
    if raised:
        return warning(
            "`sign_in_url` of the access policy gives no address.",
            f"Pages answer 403 instead of leading to a sign-in: {raised[0]}.",
        )
    if address is None:
        return ok("Pages answer 403 to who is not signed in.")
    return ok("Pages lead to the sign-in of the application.")


# What a display policy should hide: the secret, and a text that has it. In pieces, so that no scanner of
# sources takes them for real ones.
_BODY = "abcDEF0123456789" * 3
_SHAPES = {
    "a PEM block": (
        _BODY,
        f"-----BEGIN PRIVATE {'KEY'}-----\n{_BODY}\n-----END PRIVATE {'KEY'}-----",
    ),
    "a JWT": (f"{_BODY}x", f"token eyJ{_BODY}.{_BODY}x.{_BODY}"),
    "a token of GitHub": (_BODY[:36], f"ghp{'_'}{_BODY[:36]}"),
    "an access key of AWS": ("ABCDEFGHIJKLMNOP", f"AKIA{'ABCDEFGHIJKLMNOP'}"),
    "a password in a URL": ("pa55-0f-url", f"postgresql://shop:{'pa55-0f-url'}@db/shop"),
    "an Authorization header": (_BODY, f"Authorization: Bearer {_BODY}"),
    "a password with its name": ("pa55-named", f"password={'pa55-named'}"),
    "a webhook of Slack": (
        "T0000/B0000/XXXX",
        f"https://hooks.slack.com/services/{'T0000/B0000/XXXX'}",
    ),
}


def _shapes(context: CheckContext) -> CheckAnswer:
    policy = context.host.display
    shown = []
    for name, (secret, text) in _SHAPES.items():
        try:
            if secret in policy.clean_text(text):
                shown.append(name)
            policy.is_hidden_key("password")
        except Exception as fault:
            place = find_place(fault)
            return CheckAnswer(
                ERROR,
                "The display policy raises, so pages hide all that they ask it about.",
                f"{type(fault).__name__}{f' at {place}' if place else ''}.",
                is_constant=True,
            )
    if shown:
        return CheckAnswer(
            WARNING,
            f"The display policy shows {counted(len(shown), 'kind')} of secrets.",
            f"It does not hide {', '.join(shown)}. The starter calls `clean_secrets` and hides all of these.",
            is_constant=True,
        )
    return ok(f"The display policy hides {len(_SHAPES)} kinds of secrets.")


def _debug(context: CheckContext) -> CheckAnswer:
    environment = context.host.settings.environment
    assert context.app is not None
    if context.app.debug and environment.lower() not in _AT_HOME:
        return error(
            f"Flask's debugger is on in the environment {environment}.",
            "It shows code and values to everybody who causes an error. Start without --debug and "
            "FLASK_DEBUG; or set OPSJOBS_ENVIRONMENT to development where it is one.",
        )
    return ok(
        "Flask's debugger is off."
        if not context.app.debug
        else "This is a development environment."
    )


CHECKS = (
    DoctorCheck(
        "config.app",
        (ERROR,),
        "the app starts, and has joined OpsJobs",
        _app,
        needs=(),
        gives="the app",
    ),
    DoctorCheck("config.secret_key", (WARNING,), "SECRET_KEY is long enough", _secret_key),
    DoctorCheck("config.debug", (ERROR,), "Flask's debugger is off outside of development", _debug),
    DoctorCheck("access.starter", (WARNING,), "the access policy is not the starter", _starter),
    DoctorCheck("access.open", (ERROR,), "nobody gets in without a sign-in", _open),
    DoctorCheck(
        "access.sign_in", (WARNING,), "the policy's `sign_in_url` gives an address", _sign_in
    ),
    DoctorCheck(
        "display.shapes",
        (WARNING, ERROR),
        "the display policy hides common secrets, and does not raise",
        _shapes,
    ),
)
