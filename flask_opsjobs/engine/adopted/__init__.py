"""Sees, shows and changes plain RQ jobs, which host code put straight into RQ. Never unpickles them."""
