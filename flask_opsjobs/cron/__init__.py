"""Enqueues jobs by the clock, and keeps a run history in which every planned slot has one result."""
