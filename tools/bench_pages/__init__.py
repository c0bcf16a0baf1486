"""Measures every page on a million jobs: `make bench-pages`."""
