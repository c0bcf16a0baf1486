"""Edits jobs that wait: their queue, priority and arguments, and what follows from them."""
