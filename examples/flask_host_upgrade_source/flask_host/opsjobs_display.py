"""Decides what of a job is shown at /ops/jobs. `flask opsjobs install` wrote this file; one key was added."""

from __future__ import annotations

from flask_opsjobs.core.secret_patterns import clean_secrets, is_secret_key, mask_emails


class HostDisplay:
    """Hides what looks like a secret or an e-mail address. An exception in here hides the value."""

    # Names of arguments, outputs and meta that are secret in this app.
    hidden_keys: frozenset[str] = frozenset({"bank_account"})

    def is_hidden_key(self, key: str) -> bool:
        """Whether the value under this key must not be shown: `password`, `api_key`, `token`, …"""
        return key in self.hidden_keys or is_secret_key(key)

    def clean_text(self, text: str) -> str:
        """The text as it may be shown or exported: a value, an error, a traceback, a log line."""
        return mask_emails(clean_secrets(text))
