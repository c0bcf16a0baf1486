"""Runs jobs that depend on each other: what a host builds, the rows of a run, and its signals."""
