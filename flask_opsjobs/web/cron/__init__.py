"""Serves the pages of cron entries: their slots and their form."""
