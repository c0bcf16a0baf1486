"""Loads SQL statements by name, each once, and writes arrays of numbers for them.

Each file in a domain's folder `sql` holds one statement.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

# Each name exists in one folder only; `tests/test_house.py` checks this.
_FILES = {path.stem: path for path in Path(__file__).parents[1].glob("*/sql/*.sql")}


@cache
def load(name: str, *, traced: bool = False) -> str:
    """The text of `<domain>/sql/<name>.sql`, without its comments, with psycopg's `%(name)s` parameters.

    `{other.sql}` in the text is replaced by that statement in brackets. The caller passes the parameters of
    both. What stands in `{traced:…}` is there with `traced` only: jobs without a trace context need not pay
    for the parameters of its columns.
    """
    lines = _FILES[name].read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip()
    text = re.sub(r"\{(\w+)\.sql\}", lambda found: f"({load(found[1])})", text)
    return re.sub(r"(?s)\s*\{traced:(.*?)\}", r"\1" if traced else "", text)


def array_of(numbers: Iterable[float | None]) -> str:
    """The text of an array of numbers, as a parameter for `%(name)s::bigint[]`.

    psycopg needs four times as long for a list.

    >>> array_of([1, None, 0.5])
    '{1,NULL,0.5}'
    """
    return "{" + ",".join(["NULL" if each is None else repr(each) for each in numbers]) + "}"
