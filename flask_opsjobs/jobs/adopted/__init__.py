"""Keeps plain RQ jobs as rows of ours, without ever changing them in RQ."""
