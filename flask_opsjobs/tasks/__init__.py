"""Holds the numbers of each task: what was enqueued, how it ended, how long it waited and ran."""
