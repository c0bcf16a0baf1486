"""Calls the function of a job, and turns every way in which it ends into an outcome."""
