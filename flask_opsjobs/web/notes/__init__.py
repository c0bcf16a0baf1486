"""Shows the notes on a subject, and adds one."""
