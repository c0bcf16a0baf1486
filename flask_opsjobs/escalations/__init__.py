"""Tells the host's escalation policy of incidents: when, with which facts, and what came of it."""
