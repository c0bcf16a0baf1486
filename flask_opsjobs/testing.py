"""The pytest plugin for a host's own tests: what was enqueued, and performing it without workers or Redis."""

from __future__ import annotations
