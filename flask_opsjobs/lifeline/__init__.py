"""Lifeline: who is alive, what is lost, and how it is put right."""
