"""Holds what all pages share: the blueprint, addresses, access, the shell, problems and charts."""
