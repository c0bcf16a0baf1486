"""Cron: jobs by the clock, and the ledger in which every slot that should have been has one fate."""
