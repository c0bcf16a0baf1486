"""Holds notes: plain texts that people add to jobs, workflows, incidents, failures and workers."""
