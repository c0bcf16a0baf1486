"""`flask opsjobs install`: the files a host needs, and the numbered steps of our schema."""
