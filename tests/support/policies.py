"""The policies of a host that hides nothing and allows everything, and one that hides."""

from __future__ import annotations


class AllowAll:
    """Every request comes from the operator `tester`, who may do anything."""

    actor: str | None = "tester"

    def current_actor(self) -> str | None:
        return self.actor

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return True


class ShowAll:
    """Shows every value and every text as it is."""

    def is_hidden_key(self, key: str) -> bool:
        return False

    def clean_text(self, text: str) -> str:
        return text


class HidesPasswords:
    """Hides what is under the key `password`, and the text `4111-1111`."""

    def is_hidden_key(self, key: str) -> bool:
        return key == "password"

    def clean_text(self, text: str) -> str:
        return text.replace("4111-1111", "[hidden: card]")
