"""Checks that a release can be published: `make release-check`. The list of its steps is in CONTRIBUTING.md.

`texts.py` reads the checkout, `archives.py` what was built from it, `runs.py` runs what was built;
`commands.py` runs the commands of both.
"""
