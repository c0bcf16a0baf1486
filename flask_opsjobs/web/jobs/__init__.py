"""The list of jobs, its search box, saved views and exports."""
