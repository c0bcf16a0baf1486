"""The files that `flask opsjobs install` writes beside a host's app, as they are written."""
