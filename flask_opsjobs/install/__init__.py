"""Writes the files that a host needs, and runs the numbered steps of our schema: `flask opsjobs install`."""
