"""Calls the function of a job, and turns every way in which it ends into an outcome.

Whether a failed attempt is tried again is decided when the outcome is written: `endings` does.
"""
