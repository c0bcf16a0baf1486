"""Loads statements by name, each once. A file in the folder `sql` of a domain is one statement."""

import re
from functools import cache
from pathlib import Path

# A name stands in one folder only; `tests/test_house.py` sees to it.
_FILES = {path.stem: path for path in Path(__file__).parents[1].glob("*/sql/*.sql")}


@cache
def load(name: str) -> str:
    """The text of `<domain>/sql/<name>.sql`, without its comments, with psycopg's `%(name)s` parameters.

    `{other.sql}` in it stands for that statement in brackets, with the parameters of both.
    """
    lines = _FILES[name].read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip()
    return re.sub(r"\{(\w+)\.sql\}", lambda found: f"({load(found[1])})", text)
