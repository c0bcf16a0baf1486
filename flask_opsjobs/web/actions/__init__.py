"""The pages of an action: its preview, and what became of it."""
