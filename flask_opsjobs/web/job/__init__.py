"""One job in full."""
