"""Explains why a job is not running: every reason, the deciding one first."""
