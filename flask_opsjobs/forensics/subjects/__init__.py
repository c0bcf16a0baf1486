"""Tells what is known of each kind of subject: one file for each kind."""
