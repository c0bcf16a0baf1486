"""Holds the files that `flask opsjobs install` copies beside a host's app, unchanged."""
