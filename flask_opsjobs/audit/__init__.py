"""Records who did what, when and why: append-only, in a chain of hashes."""
