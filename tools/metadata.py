"""Completes the metadata of a wheel from one setting, the project's public address: its links and its README.

Hatchling calls it. The setting is `public-address` in `pyproject.toml`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# A link or a picture whose place is a file of the repository.
_RELATIVE = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")


class ProjectAddress(MetadataHookInterface):
    """Gives the links of the project, and the README as a package index shows it."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in `urls` and `readme`. Without an address there are no links, and the README is as it is."""
        address = str(self.config["public-address"]).rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_address(readme, address),
        }
        metadata["urls"] = list_urls(address)


def list_urls(address: str) -> dict[str, str]:
    """The links of the project below its public address; none without one."""
    if not address:
        return {}
    return {
        "Source": address,
        "Changes": f"{address}/blob/HEAD/CHANGES.md",
        "Issues": f"{address}/issues",
    }


def with_address(text: str, address: str) -> str:
    """Markdown in which each relative link and picture begins with the address. Unchanged without one.

    >>> with_address("![jobs](docs/jobs.png)", "https://forge.example/jobs")
    '![jobs](https://forge.example/jobs/raw/HEAD/docs/jobs.png)'
    >>> with_address("[limits](docs/limits.md#rate)", "https://forge.example/jobs")
    '[limits](https://forge.example/jobs/blob/HEAD/docs/limits.md#rate)'
    """
    if not address:
        return text
    kinds = {"!": "raw", "": "blob"}
    return _RELATIVE.sub(
        lambda found: f"{found[1]}[{found[2]}]({address}/{kinds[found[1]]}/HEAD/{found[3]})", text
    )
