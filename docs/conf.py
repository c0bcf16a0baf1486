"""How Sphinx builds these pages; the facts of the code are read from the code by `_ext/facts.py`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "flask_opsjobs"
author = "flask_opsjobs contributors"
copyright = "2026, flask_opsjobs contributors"

extensions = ["myst_parser", "facts", "reference", "decisions"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

exclude_patterns = ["_build", "_ext"]
nitpicky = True

html_theme = "furo"
html_title = "flask_opsjobs"
html_static_path = ["_static"]
html_css_files = ["facts.css"]
html_show_sphinx = False
