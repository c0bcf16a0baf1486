"""The cron entries, their slots and their form."""
