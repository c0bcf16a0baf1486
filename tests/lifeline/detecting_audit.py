"""Changes a row of the audit past us, puts it back, and what looks like it."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.actions.operator import Operator
from tests.lifeline.detecting import Case, Scene

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def _write(scene: Scene, actor: str) -> None:
    """As only a superuser can, or the owner who drops the trigger."""
    with scene.bench.connection.transaction():
        scene.bench.connection.execute("SET LOCAL session_replication_role = replica")
        scene.bench.rows(
            "UPDATE opsjobs.audit_events SET actor = %s WHERE sequence = 1 RETURNING sequence",
            actor,
        )


def _decide(scene: Scene) -> None:
    for prefetch in (2, 3):
        Operator(scene.bench.host).set_prefetch("default", prefetch, **WHY)


def _forge(scene: Scene) -> None:
    if "decided" not in scene.memory:
        _decide(scene)
        scene.memory["decided"] = True
    _write(scene, "bob")


def _put_back(scene: Scene) -> None:
    _write(scene, "ada")


def _forget_the_key(scene: Scene) -> None:
    """SECRET_KEY was changed, and SECRET_KEY_FALLBACKS does not name the old one."""
    _decide(scene)
    scene.bench.host.secrets = (b"another",)


def _be_whole(scene: Scene) -> None:
    _decide(scene)


AUDIT_BROKEN = Case(
    _forge, _put_back, {"the key is not given": _forget_the_key, "nothing was changed": _be_whole}
)
