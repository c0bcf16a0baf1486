"""Explains why a job is not running: lists every reason, with the deciding reason first."""
