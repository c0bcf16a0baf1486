"""Serves the list of jobs, its search box, saved views and exports."""
