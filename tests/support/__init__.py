"""Servers, databases, processes and waiting for all tests. No test lives here."""
