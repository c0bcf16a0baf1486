"""Finds jobs for lists and exports by the terms of the search box."""
