"""The statements of the folder `sql`, each read once; a file is one statement and says who runs it and why it locks."""

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "sql"


@cache
def load(name: str) -> str:
    """The text of `sql/<name>.sql`, without its comments, with psycopg's `%(name)s` parameters.

    `{other.sql}` in it stands for that statement in brackets, with the parameters of both.
    """
    lines = (_FOLDER / f"{name}.sql").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip()
    return re.sub(r"\{(\w+)\.sql\}", lambda found: f"({load(found[1])})", text)
