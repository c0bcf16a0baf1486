"""Finds jobs: the language of the search box, filters, lists and exports."""
