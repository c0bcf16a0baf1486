"""Does one action to many jobs: freezes them, changes them in chunks, and keeps a receipt of each."""
